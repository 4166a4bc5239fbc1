//! The job under torture, and what is done to it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use servers::{Cassandra, Kafka};

use super::{
    checkpoints::{self, Unwritable},
    log::Log,
    schedule::{Away, Blow, End, Fault, Layout, Server as Servers, Step},
};
use crate::{
    live_support::{
        Ended, Run, Server,
        client::Client,
        cluster::{is_alive, signal},
        free_ports, resident_kib,
    },
    server_support::{Place, feed::Feed, outside},
};

/// From a fault to the next checkpoint, on a machine that is busy with other things.
const RECOVERED_WITHIN: Duration = Duration::from_secs(300);

/// By contract a process ends 2 s after its supervisor, on a machine that has nothing else to do.
const ORPHANED: Duration = Duration::from_secs(15);

/// By contract 10 s in each process, and 15 s until the supervisor kills.
const STOPPED_WITHIN: Duration = Duration::from_secs(40);

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Of standard error, when something does not come.
const TOLD_LINES: usize = 60;

/// What was seen of all starts and recoveries.
#[derive(Debug, Default)]
pub struct Seen {
    pub faults: usize,
    pub starts: usize,
    pub read_again: u64,
    pub recovered: Vec<Duration>,
    pub memory_mib_max: u64,
}

pub struct Arena {
    kafka: Kafka,
    cassandra: Cassandra,
    pub place: Place,
    folder: PathBuf,
    layout: Layout,
    /// None while the job is down.
    server: Option<Server>,
    /// How many starts of this supervisor are told already.
    told: usize,
    /// The greatest number of a checkpoint that was seen.
    newest: u64,
    settled: bool,
    pub seen: Seen,
    log: Log,
}

impl Arena {
    /// Starts servers of our own, and the job on them.
    pub fn start(folder: &Path, layout: Layout, partitions: u32, log: Log) -> Self {
        let (kafka, cassandra) = (Kafka::start(), Cassandra::start());
        let place = Place::on(kafka.address(), cassandra.address(), "torture");
        outside::create_topic(&place.kafka, &place.topic, partitions);
        log.say(format_args!(
            "Kafka {}, Cassandra {}, topic and keyspace {}",
            place.kafka, place.cassandra, place.topic
        ));
        let mut arena = Self {
            kafka,
            cassandra,
            place,
            folder: folder.to_owned(),
            layout,
            server: None,
            told: 0,
            newest: 0,
            settled: true,
            seen: Seen::default(),
            log,
        };
        arena.begin();
        arena.wait_until_ready();
        arena
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// With what the job is started; each time on other ports.
    pub fn run(&self) -> Run {
        let run = self.place.run(&self.data_dir()).checkpoints_every("1s").env("TIDEMARK_CLUSTER__PATIENCE", "5m");
        run.supervised(self.layout.processes).workers(self.layout.workers)
    }

    pub fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("it was started")
    }

    /// One step of the schedule: the fault, from its begin to its end, and the recovery from it.
    pub fn suffer(&mut self, number: usize, step: &Step, feed: &Feed) {
        thread::sleep(step.pause);
        let wants_order = matches!(step.fault, Fault::Zombie { .. } | Fault::Damage { .. } | Fault::Unwritable { .. });
        if wants_order && !self.settled {
            self.recover(self.newest, feed);
        }
        self.newest = self.newest.max(self.checkpoint().unwrap_or(0));
        let (before, begun) = (self.newest, Instant::now());
        self.log.say(format_args!("{number} begins: {}", step.fault));
        self.inflict(&step.fault, feed);
        self.seen.faults += 1;
        self.log.say(format_args!("{number} is over after {:.1?}", begun.elapsed()));
        self.settled = step.settled;
        if step.settled {
            let over = Instant::now();
            // A start within the fault may have been waited for: it is to come to one more.
            self.recover(before.max(self.newest), feed);
            self.seen.recovered.push(over.elapsed());
            let (newest, recovered) = (self.newest, over.elapsed());
            let memory_mib = self.memory_mib();
            self.log.say(format_args!(
                "{number} is recovered from after {recovered:.1?}: checkpoint {newest}, {} records sent, {memory_mib} MiB",
                feed.sent(),
            ));
        }
        self.tell_starts();
    }

    fn inflict(&mut self, fault: &Fault, feed: &Feed) {
        match *fault {
            Fault::Strike(blow) => self.strike(blow),
            Fault::Stop { process, lasting } => {
                let pids = self.server().pids();
                // A start that has just begun may not have named all of them.
                self.freeze(pids.get(usize::from(process)).copied().into_iter().collect(), lasting);
            }
            Fault::StopAll { lasting } => {
                let pids = self.server().pids();
                self.freeze(pids, lasting);
            }
            Fault::KillSupervisor => {
                self.kill_supervisor();
                self.begin();
            }
            Fault::Zombie { process, lasting } => self.replace_a_stopped_one(process, lasting, feed),
            Fault::Layout(layout) => {
                self.terminate();
                self.layout = layout;
                self.begin();
            }
            Fault::SecondSupervisor => {
                self.run().start_and_end().expect(75, &["belongs to another process"]);
            }
            Fault::Outage { server, away, lasting, meanwhile } => self.outage(server, away, lasting, meanwhile),
            Fault::Damage { end, newest, harm, at } => {
                // So many are good, whatever was damaged before.
                self.recover(self.newest + newest as u64, feed);
                if feed.is_over() {
                    return self.log.say("no checkpoint was damaged: nothing new is read, so none is made any more");
                }
                match end {
                    End::Terminated => self.terminate(),
                    End::SupervisorKilled => self.kill_supervisor(),
                }
                let left = checkpoints::damage(&self.data_dir(), newest, harm, at);
                self.begin();
                self.wait_until_ready();
                match left {
                    Ok(left) => {
                        let (starts, stderr) = (self.server().starts(), self.server().stderr());
                        assert_eq!(starts[0].checkpoint, Some(left), "the newest good one is resumed: {starts:?}");
                        let told = stderr.matches("a checkpoint is damaged: falling back to an older one").count();
                        assert_eq!(told, newest, "each damaged one is told of");
                    }
                    Err(why) => self.log.say(format_args!("no checkpoint was damaged: {why}")),
                }
            }
            Fault::Unwritable { lasting } => match Unwritable::make(&self.data_dir().join("checkpoints")) {
                Some(_until_dropped) => thread::sleep(lasting),
                None => self.log.say("nothing can be made unwritable here"),
            },
        }
    }

    fn strike(&mut self, blow: Blow) {
        let pids = self.server().pids();
        for (number, pid) in (0..).zip(pids) {
            if blow == Blow::KillAll || blow == (Blow::Kill { process: number }) {
                self.signal(pid, Signal::KILL);
            }
        }
    }

    fn freeze(&self, pids: Vec<Pid>, lasting: Duration) {
        let frozen: Vec<Frozen> = pids.into_iter().filter_map(|pid| Frozen::make(pid, &self.data_dir())).collect();
        thread::sleep(lasting);
        let replaced = frozen.iter().filter(|frozen| !is_alive(frozen.pid)).count();
        if 0 < replaced {
            self.log.say(format_args!("{replaced} of {} that stood still were killed meanwhile", frozen.len()));
        }
    }

    fn outage(&mut self, server: Servers, away: Away, lasting: Duration, meanwhile: Option<Blow>) {
        match (server, away) {
            (Servers::Kafka, Away::Killed) => self.kafka.kill(),
            (Servers::Kafka, Away::Frozen) => self.kafka.stop_signal(),
            (Servers::Cassandra, Away::Killed) => self.cassandra.kill(),
            (Servers::Cassandra, Away::Frozen) => self.cassandra.stop_signal(),
        }
        thread::sleep(lasting / 2);
        if let Some(blow) = meanwhile {
            self.strike(blow);
        }
        thread::sleep(lasting / 2);
        match (server, away) {
            (Servers::Kafka, Away::Killed) => self.kafka.restart(),
            (Servers::Kafka, Away::Frozen) => self.kafka.continue_signal(),
            (Servers::Cassandra, Away::Killed) => self.cassandra.restart(),
            (Servers::Cassandra, Away::Frozen) => self.cassandra.continue_signal(),
        }
    }

    /// Each process by itself, as on several machines, since the kernel ends a stopped one with its supervisor. The stopped one
    /// has neither the folder's lock nor a port that the next start wants, and knows nothing of that.
    fn replace_a_stopped_one(&mut self, process: u16, lasting: Duration, feed: &Feed) {
        self.terminate();
        let mut members = self.members();
        let before = self.newest;
        self.wait("the processes have made a checkpoint by themselves", RECOVERED_WITHIN, |arena| {
            arena.newest = members.iter().flat_map(|member| member.client.try_checkpoint()).fold(before, u64::max);
            (before < arena.newest || feed.is_over()) && members.iter().all(Server::is_ready)
        });
        self.tell_starts_of(&members[0]);
        let mut zombie = members.remove(usize::from(process));
        let frozen = Frozen::make(Pid::from_raw(zombie.pid().cast_signed()).expect("it runs"), &self.data_dir());
        members.into_iter().for_each(|member| self.keep(&member.kill()));
        self.begin();
        self.recover(self.newest, feed);
        thread::sleep(lasting);
        assert!(zombie.is_running(), "nobody is there to kill it");
        drop(frozen);
        self.wait("the zombie ends", ORPHANED, |_| !zombie.is_running());
        let ended = zombie.kill();
        let last = ended.stderr.lines().last().unwrap_or_default();
        self.log.say(format_args!("the zombie has ended with {:?}: {last}", ended.code));
        assert_ne!(ended.code, Some(0), "{ended}");
        self.keep(&ended);
    }

    /// Starts all processes without a supervisor.
    fn members(&mut self) -> Vec<Server> {
        self.told = 0;
        let (hosts, first) = (self.folder.join("hosts"), free_ports(self.layout.processes));
        let ports = first..first + self.layout.processes;
        let lines: String = ports.map(|port| format!("127.0.0.1:{port}\n")).collect();
        fs::write(&hosts, lines).expect("the folder is ours");
        let run = self.run();
        (0..self.layout.processes).map(|process| run.clone().member(process, &hosts).begin()).collect()
    }

    /// Starts the job; it may take a while to become ready.
    pub fn begin(&mut self) {
        self.server = Some(self.run().begin());
        self.told = 0;
    }

    fn terminate(&mut self) {
        let server = self.server.take().expect("it was started");
        server.signal(Signal::TERM);
        let ended = server.wait_for_end(STOPPED_WITHIN);
        self.keep(&ended);
        // One that was just starting, or starting again, ends with 1 and says so, or by the signal.
        let is_expected = ended.code == Some(0) || !self.settled && matches!(ended.code, Some(1) | None);
        assert!(is_expected, "{ended}");
    }

    fn kill_supervisor(&mut self) {
        let mut server = self.server.take().expect("it was started");
        self.tell_starts_of(&server);
        server.signal(Signal::KILL);
        let killed = Instant::now();
        self.wait("the supervisor is gone", ORPHANED, |_| !server.is_running());
        let pids = server.pids();
        self.wait("no orphan is left", ORPHANED, |_| !pids.iter().any(|pid| is_alive(*pid)));
        self.log.say(format_args!("the supervisor and its processes were gone after {:.1?}", killed.elapsed()));
        self.keep(&server.kill());
    }

    /// Stops the job for good.
    pub fn stop(&mut self) {
        self.settled = true;
        self.terminate();
    }

    /// Waits until every process is ready and there is a checkpoint after this one, or nothing more to be read.
    pub fn recover(&mut self, after: u64, feed: &Feed) {
        self.wait("recovered", RECOVERED_WITHIN, |arena| {
            arena.newest = arena.newest.max(arena.checkpoint().unwrap_or(0));
            (after < arena.newest || feed.is_over()) && arena.server().is_ready()
        });
        self.settled = true;
    }

    fn wait_until_ready(&mut self) {
        self.wait("ready", RECOVERED_WITHIN, |arena| arena.server().is_ready());
        self.tell_starts();
    }

    #[track_caller]
    fn wait(&mut self, what: &str, within: Duration, mut is_so: impl FnMut(&mut Self) -> bool) {
        let begun = Instant::now();
        while !is_so(self) {
            if within < begun.elapsed() {
                self.tell_all();
                panic!("{what}: not within {within:?}");
            }
            let ended = self.server.as_mut().is_some_and(|server| !server.is_running());
            assert!(!ended, "{what}: the supervisor has ended");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// What everybody says of themselves, for whoever has to find out what is amiss.
    fn tell_all(&mut self) {
        let Some(server) = &self.server else { return self.log.say("the job is down") };
        for (process, client) in server.clients.iter().enumerate() {
            for path in ["/readyz", "/v1/status"] {
                match client.get(path) {
                    Ok(answer) => self.log.say(format_args!("process {process} {path}: {}", answer.json)),
                    Err(error) => self.log.say(format_args!("process {process} {path}: {error}")),
                }
            }
        }
        let stderr = server.stderr();
        let lines: Vec<_> = stderr.lines().collect();
        self.log.say(format_args!("its last lines:\n{}", lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n")));
    }

    /// The newest checkpoint that anyone knows of.
    fn checkpoint(&mut self) -> Option<u64> {
        let clients = &self.server().clients;
        clients.iter().filter_map(Client::try_checkpoint).max()
    }

    fn tell_starts(&mut self) {
        if let Some(server) = self.server.take() {
            self.tell_starts_of(&server);
            self.server = Some(server);
        }
    }

    fn tell_starts_of(&mut self, server: &Server) {
        for start in server.starts().into_iter().skip(self.told) {
            self.told += 1;
            self.seen.starts += 1;
            self.seen.read_again += start.records_to_read;
            let from = start
                .checkpoint
                .map_or("from the first record".to_owned(), |number| format!("from checkpoint {number}"));
            let (layout, generation, records) = (self.layout, start.generation, start.records_to_read);
            self.log.say(format_args!("start {generation} as {layout}: {from}, {records} records to read"));
        }
    }

    /// What all processes have in memory.
    fn memory_mib(&mut self) -> u64 {
        let pids = self.server().pids();
        let kib = |pid: Pid| resident_kib(pid.as_raw_nonzero().get().unsigned_abs());
        let mib = pids.into_iter().map(kib).sum::<u64>() / 1024;
        self.seen.memory_mib_max = self.seen.memory_mib_max.max(mib);
        mib
    }

    /// A process that has ended may have left its id to another.
    fn signal(&self, pid: Pid, what: Signal) {
        if is_ours(pid, &self.data_dir()) {
            signal(pid, what);
        }
    }

    /// Appends what a supervisor has said to the log that stays.
    fn keep(&self, ended: &Ended) {
        let path = self.folder.join("tidemark.log");
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        let written =
            file.and_then(|mut file| write!(file, "--- {}, exit {:?}\n{}", self.layout, ended.code, ended.stderr));
        written.expect("the folder is ours");
    }
}

/// A process that stands still, until this is dropped.
struct Frozen {
    pid: Pid,
    data_dir: PathBuf,
}

impl Frozen {
    fn make(pid: Pid, data_dir: &Path) -> Option<Self> {
        is_ours(pid, data_dir).then(|| {
            signal(pid, Signal::STOP);
            Self { pid, data_dir: data_dir.to_owned() }
        })
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if is_ours(self.pid, &self.data_dir) {
            signal(self.pid, Signal::CONT);
        }
    }
}

fn is_ours(pid: Pid, data_dir: &Path) -> bool {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let data_dir = data_dir.to_str().expect("our own folders are UTF-8").as_bytes();
    words.split(|byte| *byte == 0).any(|word| word == data_dir)
}
