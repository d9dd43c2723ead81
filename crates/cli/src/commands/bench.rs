//! `bench`.

use crate::args::{BenchCommand, Place};

pub(crate) fn run(_place: &Place, _command: BenchCommand) -> anyhow::Result<()> {
    anyhow::bail!("being written")
}
