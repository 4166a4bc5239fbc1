//! The door and the disk, seen by the kernel: strace records the system calls of the real binary, and lets some of them fail.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{collections::HashMap, fs, path::Path, process::Command, sync::Mutex, thread, time::Duration};

use live_support::{
    Run, SOON,
    client::{Client, event, video_of_each},
    now_ms,
    truth::{Truth, manifests},
    wait_for,
};

/// Panics with what to do where strace is not there, or may not trace.
fn need_strace() {
    let tried = Command::new("strace").args(["-f", "-qq", "-e", "trace=none", "true"]).output();
    let works = tried.as_ref().is_ok_and(|output| output.status.success());
    assert!(works, "this test needs strace and the right to trace (Debian: apt-get install strace): {tried:?}");
}

/// One finished system call of the trace.
#[derive(Debug)]
struct Call {
    /// The line where it began, and where it returned.
    began: usize,
    returned: usize,
    name: String,
    arguments: String,
    result: String,
}

/// Reads a trace: calls of all threads, in the order in which they returned. Calls that were interrupted are put together.
fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.trim_start().split_once(' ') else { continue };
        let rest = rest.trim_start();
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, begun.trim_end().to_owned()));
            continue;
        }
        let (began, whole) = match rest.strip_prefix("<... ") {
            Some(resumed) => {
                let (began, begun) = unfinished.remove(thread).expect("what is resumed was begun");
                let (_, behind) = resumed.split_once("resumed>").expect("it says so");
                (began, begun + behind)
            }
            None => (number, rest.to_owned()),
        };
        // The result follows the last ` = `: the text of an argument may hold one too.
        let Some((call, result)) = whole.rsplit_once(" = ") else { continue };
        let Some((name, arguments)) = call.split_once('(') else { continue };
        calls.push(Call {
            began,
            returned: number,
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            result: result.to_owned(),
        });
    }
    calls
}

#[test]
fn a_trace_is_read_call_by_call() {
    let trace = "7 write(3</a>, \"x = 1\", 5) = 5\n8 fdatasync(4</b> <unfinished ...>\n7 write(3</a>, \"y\", 1) = 1\n8 <... fdatasync resumed>) = -1 EIO (Input/output error) (INJECTED)\n7 +++ exited with 0 +++\n";
    let calls = calls(trace);
    let read: Vec<_> =
        calls.iter().map(|call| (call.name.as_str(), call.began, call.returned, call.result.as_str())).collect();
    assert_eq!(
        read,
        [("write", 0, 0, "5"), ("write", 2, 2, "1"), ("fdatasync", 1, 3, "-1 EIO (Input/output error) (INJECTED)")]
    );
    assert!(calls[2].arguments.starts_with("4</b>"));
}

#[test]
fn no_202_is_sent_before_the_fdatasync_behind_its_records_has_returned() {
    need_strace();
    let folder = tempfile::tempdir().unwrap();
    let trace_file = folder.path().join("trace");
    let data_dir = folder.path().join("data");
    let syscalls = "trace=fdatasync,fsync,write,writev,pwrite64,pwritev,sendto,sendmsg,io_uring_enter";
    let trace_name = trace_file.display().to_string();
    let server = Run::new(&data_dir)
        .under(&[
            "strace",
            "-D",
            "-f",
            "-qq",
            "-y",
            "-s",
            "65536",
            "-e",
            "signal=none",
            "-e",
            syscalls,
            "-o",
            &trace_name,
        ])
        .start();
    // Eight clients at a time, so that groups are shared; each request goes to one partition, or to all.
    let receipts: Mutex<Vec<(Vec<String>, String)>> = Mutex::default();
    let videos = video_of_each(4);
    let start_ms = now_ms() - 600_000;
    thread::scope(|scope| {
        for client_number in 0..8 {
            let (client, receipts, videos) = (server.client.another(), &receipts, &videos);
            scope.spawn(move || {
                for request in 0..12 {
                    let to = if request % 4 == 3 { &videos[..] } else { &videos[client_number % 4..][..1] };
                    let ids: Vec<String> =
                        (0..to.len()).map(|n| format!("id-{client_number}-{request}-{n}-end")).collect();
                    let events: Vec<String> =
                        ids.iter().zip(to).map(|(id, video)| event(id, video, "view", start_ms)).collect();
                    let token = client.send(&events);
                    receipts.lock().unwrap().push((ids, token));
                }
            });
        }
    });
    server.stop();
    let receipts = receipts.into_inner().unwrap();
    let trace = wait_for("the whole trace", SOON, || {
        let trace = fs::read_to_string(&trace_file).ok()?;
        // Written by strace, which may be a moment behind.
        receipts.iter().all(|(_, token)| trace.contains(&quoted(token))).then_some(trace)
    });
    let calls = calls(&trace);
    let is_segment = |call: &Call| call.arguments.contains("/log/partition-") && call.arguments.contains(".log>");
    let writes: Vec<&Call> = calls
        .iter()
        .filter(|call| ["write", "writev", "pwrite64", "pwritev"].contains(&&*call.name) && is_segment(call))
        .collect();
    let syncs: Vec<&Call> =
        calls.iter().filter(|call| call.name == "fdatasync" && is_segment(call) && call.result == "0").collect();
    let answers: Vec<&Call> = calls.iter().filter(|call| call.arguments.contains("HTTP/1.1 202 ")).collect();
    assert_eq!(answers.len(), receipts.len(), "every 202 is in the trace");
    assert!(10 <= syncs.len(), "several groups: {}", syncs.len());
    let mut proofs = 0;
    for (ids, token) in &receipts {
        let answer = calls.iter().find(|call| is_socket(call) && call.arguments.contains(&quoted(token)));
        let answer = answer.unwrap_or_else(|| panic!("the answer with {token} is in the trace"));
        for id in ids {
            let write = writes.iter().find(|call| call.arguments.contains(id.as_str()));
            let write = write.unwrap_or_else(|| panic!("the write of {id} is in the trace"));
            let path = path_of(write);
            let between =
                |sync: &&&Call| path_of(sync) == path && write.returned < sync.began && sync.returned < answer.began;
            assert!(
                syncs.iter().any(|sync| between(&sync)),
                "{id} was written at line {} of the trace and acknowledged at line {} without an fdatasync of {path} between",
                write.returned,
                answer.began
            );
            proofs += 1;
        }
    }
    println!("{proofs} records in {} requests, {} writes, {} fdatasyncs", receipts.len(), writes.len(), syncs.len());
    assert!(syncs.len() < proofs, "some requests shared a group");
}

#[test]
fn no_manifest_gets_its_name_before_its_parts_and_their_names_are_on_disk() {
    need_strace();
    let folder = tempfile::tempdir().unwrap();
    let trace_file = folder.path().join("trace");
    let data_dir = folder.path().join("data");
    let trace_name = trace_file.display().to_string();
    let syscalls = "trace=fsync,fdatasync,rename,renameat,renameat2,link,linkat";
    let strace = ["strace", "-D", "-f", "-qq", "-y", "-e", "signal=none", "-e", syscalls, "-o", &trace_name];
    let server = Run::new(&data_dir).checkpoints_every("200ms").under(&strace).start();
    let (at, videos) = (now_ms() - 600_000, video_of_each(4));
    for (round, video) in videos.iter().enumerate() {
        let number = server.client.checkpoint().unwrap_or(0);
        server.client.send(&[event(&format!("e{round}"), video, "view", at)]);
        server.client.wait_for_checkpoint_after(number);
    }
    server.stop();
    let newest = manifests(&data_dir).pop().unwrap().version;
    let newest = format!("{:020}-{:020}.manifest", newest.generation, newest.number);
    let trace = wait_for("the whole trace", SOON, || {
        let trace = fs::read_to_string(&trace_file).ok()?;
        trace.contains(&newest).then_some(trace)
    });
    let calls: Vec<Call> = calls(&trace).into_iter().filter(|call| call.result == "0").collect();
    // That a path was synced behind one line of the trace and before another.
    let assert_synced = |path: &str, behind: usize, before: usize| {
        let between = |call: &Call| behind <= call.began && call.returned < before;
        let is_it = |call: &Call| call.name.ends_with("sync") && path_of(call) == path && between(call);
        assert!(calls.iter().any(is_it), "{path} is not synced between the lines {behind} and {before} of the trace");
    };
    let parts_dir = data_dir.join("checkpoints/parts").display().to_string();
    let is_manifest = |call: &&Call| call.name.starts_with("link") && call.arguments.contains(".manifest");
    let manifests: Vec<&Call> = calls.iter().filter(is_manifest).collect();
    assert!(3 <= manifests.len(), "each round has made one: {}", manifests.len());
    for manifest in manifests {
        let [temporary, name] = paths(manifest);
        assert_synced(temporary, 0, manifest.began);
        let of_it = format!("parts/{}.w", Path::new(name).file_stem().unwrap().display());
        let is_part = |call: &&Call| call.name.starts_with("rename") && paths(call)[1].contains(&of_it);
        let parts: Vec<&Call> = calls.iter().filter(is_part).collect();
        assert_eq!(parts.len(), 2, "one of each worker is in {name}");
        for part in parts {
            assert_synced(paths(part)[0], 0, part.began);
            assert_synced(&parts_dir, part.returned, manifest.began);
        }
    }
}

/// The two paths of a rename or a link.
fn paths(call: &Call) -> [&str; 2] {
    let quoted: Vec<&str> = call.arguments.split('"').collect();
    [quoted[1], quoted[3]]
}

/// A token as strace shows it in an answer.
fn quoted(token: &str) -> String {
    format!("\\\"token\\\":\\\"{token}\\\"")
}

fn is_socket(call: &Call) -> bool {
    call.arguments
        .split_once('>')
        .is_some_and(|(descriptor, _)| descriptor.contains("<socket:") || descriptor.contains("<TCP"))
}

/// The path of a call's first argument, as `-y` shows it.
fn path_of(call: &Call) -> &str {
    let (_, behind) = call.arguments.split_once('<').expect("descriptors are shown with their paths");
    behind.split_once('>').expect("and end").0
}

/// One post that may fail with a status: whether it was acknowledged.
fn post(client: &Client, events: &[String], or: u16) -> bool {
    let answer =
        client.post("/v1/events", "application/x-ndjson", events.join("\n").as_bytes()).expect("it is answered");
    if answer.status != 202 {
        assert_eq!(answer.status, or, "{}", answer.text);
        assert_eq!(answer.json["status"], or, "{}", answer.text);
    }
    answer.status == 202
}

/// Runs under strace with faults in the log of partition 0, posts `posts` events one by one, and gives which of them were acknowledged,
/// and not answered with the status.
fn posts_under(folder: &Path, fault: &str, segments: &[u64], posts: usize, or: u16) -> Vec<bool> {
    need_strace();
    let data_dir = folder.join("data");
    let log = data_dir.join("log/partition-0");
    let mut command = vec!["strace".to_owned(), "-D".to_owned(), "-f".to_owned(), "-qq".to_owned()];
    for base in segments {
        command.extend(["-P".to_owned(), log.join(format!("{base:020}.log")).display().to_string()]);
    }
    let (syscall, _) = fault.split_once(':').expect("a fault names its system call");
    command.extend(["-e".to_owned(), format!("trace={syscall}"), "-e".to_owned(), format!("inject={fault}")]);
    command.extend(["-o".to_owned(), folder.join("trace").display().to_string()]);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut server = Run::new(&data_dir).under(&command).start();
    let video = &video_of_each(4)[0];
    let at = now_ms() - 600_000;
    let acknowledged: Vec<bool> =
        (0..posts).map(|n| post(&server.client, &[event(&format!("e{n}"), video, "view", at)], or)).collect();
    assert!(server.is_running(), "a failing disk does not end the process");
    // Another partition's disk is fine all the while.
    assert!(post(&server.client, &[event("other", &video_of_each(4)[1], "view", at)], 202));

    // What is visible now is exactly what was acknowledged: nothing else was promised, and the file that failed is out.
    let counted = acknowledged.iter().filter(|acknowledged| **acknowledged).count() as u64;
    let total =
        |server: &live_support::Server| server.client.stats(video, "granularity=all").expect(200)["total"].as_u64();
    wait_for("the acknowledged events visible", Duration::from_secs(5), || {
        (total(&server) == Some(counted)).then_some(())
    });
    server.kill();
    let trace = fs::read_to_string(folder.join("trace")).unwrap();
    assert_eq!(trace.matches("INJECTED").count(), acknowledged.len() - counted as usize, "{trace}");

    // After a restart each acknowledged event is there once; each other one once or not at all; resent, all are there once.
    let server = Run::new(&data_dir).start();
    let truth = Truth::of(&data_dir);
    server.client.wait_until_visible(&truth.end_offsets(), SOON);
    let found = total(&server).unwrap();
    assert!((counted..=posts as u64).contains(&found), "{counted} acknowledged of {posts}, {found} counted");
    for (n, was_acknowledged) in acknowledged.iter().enumerate() {
        let id = format!("\"e{n}\"");
        let copies =
            truth.log[0].iter().filter(|record| String::from_utf8_lossy(&record.payload).contains(&id)).count();
        assert!(
            copies == 1 || (copies == 0 && !was_acknowledged),
            "e{n}: {copies} copies, acknowledged: {was_acknowledged}"
        );
    }
    for n in 0..posts {
        assert!(post(&server.client, &[event(&format!("e{n}"), video, "view", at)], 202));
    }
    let truth = Truth::of(&data_dir);
    let status = server.client.wait_until_visible(&truth.end_offsets(), SOON);
    truth.assert_status(&status);
    assert_eq!(total(&server), Some(posts as u64));
    server.stop();
    truth.assert_stopped(&data_dir);
    acknowledged
}

/// A disk that does not answer a read holds its worker up, which is as stuck as one can be.
#[test]
fn a_worker_that_is_stuck_is_named_and_then_ends_the_process_and_nothing_is_lost() {
    need_strace();
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let videos = video_of_each(4);
    let at = now_ms() - 600_000;
    let all = |id: &str| -> Vec<String> { videos.iter().map(|video| event(id, video, "view", at)).collect() };
    let server = Run::new(&data_dir).workers(2).start();
    let token = server.client.send(&all("before"));
    server.client.stats(&videos[0], &format!("after={token}")).expect(200);

    let segment = data_dir.join("log/partition-0").join(format!("{:020}.log", 0)).display().to_string();
    // Longer than any patience.
    let fault = "inject=pread64:delay_enter=120s";
    let (trace, pid) = (folder.path().join("trace").display().to_string(), server.pid().to_string());
    let strace = ["-f", "-qq", "-P", &segment, "-e", "trace=pread64", "-e", fault, "-o", &trace, "-p", &pid];
    let mut strace = Command::new("strace").args(strace).spawn().unwrap();
    let tasks = Path::new("/proc").join(&pid).join("task");
    wait_for("every thread is traced", SOON, || {
        let mut tasks = fs::read_dir(&tasks).unwrap();
        let is_traced = |task: fs::DirEntry| {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        tasks.all(|task| is_traced(task.unwrap())).then_some(())
    });
    for n in 0..3 {
        server.client.send(&all(&format!("e{n}")));
    }
    let says = "has not moved for";
    let answer = wait_for("it is not ready", SOON, || {
        let answer = server.client.get("/readyz").unwrap();
        (answer.status == 503 && answer.text.contains(says)).then_some(answer.text)
    });
    let status = server.client.status();
    let bottleneck = status["bottleneck"].as_str().unwrap();
    assert!(bottleneck.starts_with("worker ") && bottleneck.contains(says), "{bottleneck}, and {answer}");

    wait_for("it ends itself", Duration::from_secs(60), || {
        server.stderr().contains("a worker is stuck: ending the process").then_some(())
    });
    // What strace holds back can't end.
    strace.kill().unwrap();
    strace.wait().unwrap();
    let ended = server.wait_for_end(SOON);
    assert_eq!(ended.code, None, "by a signal: {ended}");
    let server = Run::new(&data_dir).start();
    let truth = Truth::of(&data_dir);
    assert_eq!(truth.end_offsets(), [4; 4], "all that was acknowledged is in the log");
    let status = server.client.wait_until_visible(&truth.end_offsets(), SOON);
    truth.assert_status(&status);
    truth.assert_index(&server.client);
    server.stop();
    truth.assert_stopped(&data_dir);
}

#[test]
fn a_failed_fdatasync_is_a_503_and_the_log_goes_on_in_another_file() {
    let folder = tempfile::tempdir().unwrap();
    // The third and the fourth: the last one that the first segment sees, and the first one of its successor.
    let acknowledged = posts_under(folder.path(), "fdatasync:error=EIO:when=3..4", &[0, 2], 7, 503);
    assert_eq!(acknowledged, [true, true, false, false, true, true, true]);
}

#[test]
fn a_full_disk_is_a_507_until_there_is_room_again() {
    let folder = tempfile::tempdir().unwrap();
    let acknowledged = posts_under(folder.path(), "write:error=ENOSPC:when=3..4", &[0, 2], 7, 507);
    assert_eq!(acknowledged, [true, true, false, false, true, true, true]);
}
