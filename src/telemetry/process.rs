//! The process set of metrics, read from `/proc` (Linux; proc(5)). What can't be read is left out.

use std::fs;

/// Name, kind, help and value of one metric.
pub(super) type Reading = (&'static str, &'static str, &'static str, f64);

/// Kernel ticks a second in `/proc`: `USER_HZ`, which is 100 on every architecture that labgate runs on.
const TICKS: f64 = 100.0;

/// What `/proc` says now.
pub(super) fn read() -> Vec<Reading> {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let stat = Stat::parse(&file("/proc/self/stat"));
    let status = file("/proc/self/status");
    let kilobytes = |name| field(&status, name).map(|value| value * 1024.0);
    let started = || Some(field(&file("/proc/stat"), "btime")? + stat.as_ref()?.started);
    let values = [
        stat.as_ref().map(|stat| stat.cpu),
        open_files(),
        field(&file("/proc/self/limits"), "Max open files"),
        kilobytes("VmSize:"),
        kilobytes("VmRSS:"),
        started(),
        field(&status, "Threads:"),
    ];
    let described = DESCRIBED.into_iter().zip(values);
    described.filter_map(|((name, kind, help), value)| Some((name, kind, help, value?))).collect()
}

const DESCRIBED: [(&str, &str, &str); 7] = [
    ("process_cpu_seconds_total", "counter", "User and system CPU time spent, in seconds."),
    ("process_open_fds", "gauge", "Open file descriptors."),
    ("process_max_fds", "gauge", "Most file descriptors that may be open."),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory, in bytes."),
    ("process_resident_memory_bytes", "gauge", "Resident memory, in bytes."),
    (
        "process_start_time_seconds",
        "gauge",
        "Start of the process, in seconds since the Unix epoch.",
    ),
    ("process_threads", "gauge", "Threads of the process."),
];

struct Stat {
    /// User and system time, in seconds.
    cpu: f64,
    /// Seconds after boot.
    started: f64,
}

impl Stat {
    /// Reads `/proc/self/stat`; fields are counted after the name in brackets, which may itself hold spaces and brackets.
    fn parse(line: &str) -> Option<Self> {
        let (_, fields) = line.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self { cpu: (number(11)? + number(12)?) / TICKS, started: number(19)? / TICKS })
    }
}

fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // The directory itself was open while it was counted.
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

/// The first number of the line that begins with `name`.
fn field(text: &str, name: &str) -> Option<f64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_shifts_no_field() {
        let line = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 12345 1 2";
        let stat = Stat::parse(line).unwrap();
        assert!((stat.cpu - 3.0).abs() < 1e-9);
        assert!((stat.started - 123.45).abs() < 1e-9);
        assert!(Stat::parse("42 (a) S 1").is_none());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_is_plausible() {
        let readings = read();
        let value = |name| {
            let reading = readings.iter().find(|reading| reading.0 == name);
            reading.map(|reading| reading.3).unwrap()
        };
        assert_eq!(readings.len(), DESCRIBED.len());
        assert!(value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_start_time_seconds") > 1.5e9);
        assert!(value("process_threads") >= 1.0);
    }
}
