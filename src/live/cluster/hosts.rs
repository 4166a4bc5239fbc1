//! The file that names a cluster's processes: one `host:port` a line, in their order. Blank lines and those that begin
//! with `#` are skipped.

use std::{fs, path::Path};

use anyhow::Context as _;

use crate::exit::{Exit, Failure, OrExit as _};

/// The addresses, among them that of `process`.
pub fn read(path: &Path, process: usize) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("reading the hosts file {}", path.display()))
        .or_exit(Exit::Usage)?;
    let hosts = parse(&text).map_err(|fault| Failure::usage(format!("{}: {fault}", path.display())))?;
    if hosts.len() <= process {
        let fault = format!("{} names {} processes: there is no process {process}", path.display(), hosts.len());
        return Err(Failure::usage(fault));
    }
    Ok(hosts)
}

fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut hosts: Vec<String> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let port = line.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(port)) if port != 0 => {}
            _ => return Err(format!("line {number}: {line:?} is not host:port")),
        }
        if hosts.iter().any(|known| known == line) {
            return Err(format!("line {number}: {line} is there twice"));
        }
        hosts.push(line.to_owned());
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_a_line_in_order() {
        assert_eq!(parse("# two\na:1\n\n  [::1]:2 \n"), Ok(vec!["a:1".to_owned(), "[::1]:2".to_owned()]));
        for (text, says) in [
            ("a:1\nb", "line 2: \"b\" is not host:port"),
            (":1", "line 1"),
            ("a:0", "line 1"),
            ("a:70000", "line 1"),
            ("a:1\n#\na:1", "line 3: a:1 is there twice"),
        ] {
            assert!(parse(text).is_err_and(|fault| fault.contains(says)), "{text:?}");
        }
    }
}
