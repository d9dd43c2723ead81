//! Rows as a person reads them.

use std::fmt::Write as _;

use super::FindingRow;

/// The rows of several plans.
#[must_use]
pub fn table(rows: &[FindingRow]) -> String {
    let mut text = format!(
        "{:<22} {:<9} {:>7} {:>8} {:>11} {:>13} {:>13} {:>13} {:>11} {:>9} {:>6}\n",
        "plan",
        "method",
        "lookups",
        "found %",
        "calls",
        "KiB",
        "first ms",
        "done ms",
        "write calls",
        "kept",
        "alarms"
    );
    for row in rows {
        let pair = |[median, high]: [u64; 2]| format!("{median}/{high}");
        let kib = row.bytes.map(|bytes| bytes.div_ceil(1024));
        let share = row.per_myriad();
        let _ = writeln!(
            text,
            "{:<22} {:<9} {:>7} {:>5}.{:02} {:>11} {:>13} {:>13} {:>13} {:>11} {:>9} {:>6}",
            row.plan,
            row.method,
            row.lookups,
            share / 100,
            share % 100,
            pair(row.calls),
            pair(kib),
            pair(row.first_ms),
            pair(row.done_ms),
            pair(row.write_calls),
            pair(row.kept),
            row.alarms
        );
    }
    text.push_str("pairs are median and 95th of a hundred\n");
    text
}
