//! How many connections this process has file descriptors for.
//!
//! Accepting until none is left would starve upstreams, GitLab and the log: each client may need a second socket, and some stay for the process.

use std::fs;

/// Descriptors that are not for clients or their upstreams: listeners, GitLab, files, runtimes.
const RESERVE: usize = 64;

/// `configured` connections, or fewer if the process may not open enough files; it can't raise that limit itself.
pub(super) fn affordable(configured: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let Some(files) = open_files(&limits) else {
        return configured;
    };
    let limit = within(configured, files);
    if limit < configured {
        tracing::warn!(
            configured,
            limit,
            open_files = files,
            "the limit of open files allows fewer connections than server.limits.connections"
        );
    }
    limit
}

fn within(configured: usize, files: usize) -> usize {
    configured.min((files.saturating_sub(RESERVE) / 2).max(1))
}

/// The soft limit in the format of `proc_pid_limits(5)`; none if it is unlimited or unknown.
fn open_files(limits: &str) -> Option<usize> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_descriptors_are_kept_for_upstreams() {
        let limits = "Limit       Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(within(10_000, 1024), 480);
        assert_eq!(within(100, 1024), 100);
        assert_eq!(within(100, 10), 1);
        assert_eq!(open_files("Max open files  unlimited  unlimited files"), None);
        assert_eq!(open_files(""), None);
    }
}
