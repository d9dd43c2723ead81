//! `bench proof`: the goals of proof of inference, and what this machine makes of them.
//!
//! Commitment, receipt and full audit are measured as `bench engine` measures
//! them; spot audits and fraud proofs with the code that nodes run, without a
//! network in between. Deliberately absent: what cheats meet (`bench cheats`).

use peerproof::bench::{Convicted, Disputed, LitCell, Proving, Spotted, Subject};
use peerproof::models::Installed;

use super::figures::{Figure, Report, ms, us};
use super::{TEXT, cores, engine};

/// Fraud proofs that are made and judged.
const PROOFS: usize = 5;
const KIB: f64 = 1024.0;

pub(super) fn run(model: &Installed, runs: usize, sets: usize) -> anyhow::Result<Report> {
    let subject = Subject::open(&model.path)?;
    let mut report = Report::new(model);
    engine::commitment(&subject, runs, &mut report)?;
    engine::audit(&subject, runs, &mut report)?;
    eprintln!("an answer for spot audits");
    let proving = subject.proving(&model.path, cores(), TEXT, engine::AUDIT)?;
    spots(&proving, sets, &mut report)?;
    lights(&proving, sets, &mut report)?;
    proofs(&proving, &mut report)?;
    disputes(&proving, &mut report)?;
    report.note("disputes: without a network, and without the accused's replay (a spot audit's)");
    Ok(report)
}

fn spots(proving: &Proving, sets: usize, report: &mut Report) -> anyhow::Result<()> {
    let mut spotted: Vec<Spotted> = Vec::with_capacity(sets);
    for set in 0..sets {
        if set % 10 == 0 {
            eprintln!("spot audit {} of {sets}", set + 1);
        }
        spotted.push(proving.spot()?);
    }
    let of = |value: fn(&Spotted) -> f64| spotted.iter().map(value).collect::<Vec<_>>();
    let loading: Vec<f64> = proving.loading.iter().map(|time| ms(*time)).collect();
    report.add(Figure::new("loading a layer or the head", "ms", &loading));
    report.add(
        Figure::new("spot audit of 8 cells, router, layers loaded", "ms", &of(|s| ms(s.judging)))
            .at_most(50.0),
    );
    report.add(Figure::new(
        "the same, for each cell",
        "µs",
        &of(|s| us(s.judging) / f64::from(s.cells)),
    ));
    report
        .add(Figure::new("openings of 8 cells", "KiB", &of(|s| s.bytes as f64 / KIB)).at_most(KIB));
    report.add(Figure::new(
        "spot audit of 8 cells, provider (computes all again)",
        "ms",
        &of(|s| ms(s.opening)),
    ));
    let cells: u32 = spotted.iter().map(|s| s.cells).sum();
    let accused = spotted.iter().filter(|s| s.accused).count() as f64;
    report.add(
        Figure::new(format!("false accusations in {cells} honest cells"), "", &[accused])
            .at_most(0.0),
    );
    Ok(())
}

fn lights(proving: &Proving, sets: usize, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("light audits");
    let lighted = proving.lighted()?;
    let mut cells: Vec<LitCell> = Vec::new();
    for _ in 0..sets {
        cells.extend(proving.light(&lighted)?);
    }
    let (heads, layers): (Vec<_>, Vec<_>) = cells.iter().partition(|cell| cell.head);
    let of = |cells: &[LitCell], value: fn(&LitCell) -> f64| -> Vec<f64> {
        cells.iter().map(value).collect()
    };
    let kept = lighted.kept_bytes as f64 / KIB;
    report.add(Figure::new("light audits, preparing", "ms", &[ms(lighted.preparing)]));
    report.add(Figure::new("kept of the model by a router", "KiB", &[kept]));
    let name = "light audit of a cell, router, attention included";
    report.add(Figure::new(name, "ms", &of(&layers, |cell| ms(cell.judging))).at_most(5.0));
    report.add(Figure::new("products of a cell", "KiB", &of(&layers, |c| c.products as f64 / KIB)));
    report.add(Figure::new(
        "its opening, these included",
        "KiB",
        &of(&layers, |c| c.bytes as f64 / KIB),
    ));
    if !heads.is_empty() {
        let name = "light audit of a head, router, with the draw";
        report.add(Figure::new(name, "ms", &of(&heads, |cell| ms(cell.judging))).at_most(5.0));
        report.add(Figure::new(
            "products of a head",
            "KiB",
            &of(&heads, |c| c.products as f64 / KIB),
        ));
    }
    let accused = cells.iter().filter(|cell| cell.accused).count() as f64;
    let name = format!("false accusations in {} honest cells, by products", cells.len());
    report.add(Figure::new(name, "", &[accused]).at_most(0.0));
    Ok(())
}

fn proofs(proving: &Proving, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("fraud proofs");
    let proofs = (0..PROOFS).map(|_| proving.convict()).collect::<Result<Vec<_>, _>>()?;
    let of = |value: fn(&Convicted) -> f64| proofs.iter().map(value).collect::<Vec<_>>();
    report.add(Figure::new("proof of a whole cell", "KiB", &of(|p| p.bytes as f64 / KIB)));
    report.add(Figure::new("judging it", "ms", &of(|p| ms(p.judging))));
    Ok(())
}

fn disputes(proving: &Proving, report: &mut Report) -> anyhow::Result<()> {
    eprintln!("disputes");
    let disputed = proving.disputes()?;
    let of = |value: fn(&Disputed) -> f64| disputed.iter().map(value).collect::<Vec<_>>();
    report.add(Figure::new("rounds of a dispute", "", &of(|d| d.rounds as f64)).at_most(4.0));
    let sent = of(|d| (d.bytes + d.proof) as f64 / KIB);
    report.add(Figure::new("bytes of a dispute and its proof", "KiB", &sent).at_most(64.0));
    report.add(Figure::new("proof of a dispute", "KiB", &of(|d| d.proof as f64 / KIB)));
    report.add(Figure::new("referee of a dispute", "ms", &of(|d| ms(d.judging))).at_most(1.0));
    report.add(Figure::new("reading its proof, signatures included", "ms", &of(|d| ms(d.reading))));
    for one in &disputed {
        let name = format!(
            "referee: {} ({} rounds, {} B sent, proof of {} B)",
            one.operation.name(),
            one.rounds,
            one.bytes,
            one.proof
        );
        report.add(Figure::new(name, "µs", &[us(one.judging)]).at_most(1000.0));
    }
    Ok(())
}
