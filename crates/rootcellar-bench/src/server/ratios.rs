//! The questions of a run with several servers: what ours costs beside what nobody can avoid, and beside a peer.
//!
//! First the processor time of the servers for each item, which is what a busy machine does not change much; then rates.

use super::settings::{Role, Target, Workload};
use super::{CPU, RATE};
use crate::report::{Figure, Goal, Report};

/// What is to be reached against a server that keeps nothing, in processor time and in rates.
const AGAINST_BARE: [(Workload, f64); 4] = [
    (Workload::StreamRead, 0.8),
    (Workload::StreamWrite, 0.8),
    (Workload::BatchUpdate, 0.6),
    (Workload::BatchRead, 0.6),
];

/// What is to be reached against a peer, in processor time.
const AGAINST_PEERS: [(Workload, f64); 8] = [
    (Workload::BatchUpdate, 3.0),
    (Workload::BatchRead, 3.0),
    (Workload::FindMissing, 3.0),
    (Workload::AcPut, 3.0),
    (Workload::AcGet, 3.0),
    (Workload::GetTree, 3.0),
    (Workload::StreamWrite, 1.5),
    (Workload::StreamRead, 1.5),
];

/// The figures that can be had from what was measured.
pub(super) fn figures(report: &Report, targets: &[Target]) -> Vec<Figure> {
    let of = |role| targets.iter().filter(move |target| target.role == role);
    let mut figures = Vec::new();
    for ours in of(Role::Ours) {
        let pair = |other| Pair {
            report,
            ours: &ours.name,
            other,
        };
        for bare in of(Role::Bare) {
            figures.extend(AGAINST_BARE.iter().filter_map(|goal| pair(&bare.name).cpu(*goal)));
        }
        for peer in of(Role::Peer) {
            figures.extend(AGAINST_PEERS.iter().filter_map(|goal| pair(&peer.name).cpu(*goal)));
        }
        for bare in of(Role::Bare) {
            figures.extend(AGAINST_BARE.iter().filter_map(|goal| pair(&bare.name).rate(*goal)));
        }
    }
    figures
}

/// Two servers of a report.
#[derive(Clone, Copy)]
struct Pair<'a> {
    report: &'a Report,
    ours: &'a str,
    other: &'a str,
}

impl Pair<'_> {
    /// How many times what ours takes the other one takes.
    fn cpu(self, (workload, goal): (Workload, f64)) -> Option<Figure> {
        let (ours, other) = self.values(workload, CPU)?;
        let rates = self.values(workload, RATE);
        let rates = rates.map_or_else(String::new, |(ours, other)| {
            format!("; {ours:.0} and {other:.0} items a second, {:.2} times", ours / other)
        });
        Some(Figure {
            question: format!("{}: CPU an item, {} / {}", workload.name(), self.other, self.ours),
            value: other / ours,
            goal: Goal::AtLeast(goal),
            detail: format!("{other:.2} / {ours:.2} us{rates}"),
        })
    }

    /// How many times as many items ours does in the same time.
    fn rate(self, (workload, goal): (Workload, f64)) -> Option<Figure> {
        let (ours, other) = self.values(workload, RATE)?;
        Some(Figure {
            question: format!("{}: items a second, {} / {}", workload.name(), self.ours, self.other),
            value: ours / other,
            goal: Goal::AtLeast(goal),
            detail: format!("{ours:.0} / {other:.0}, client and server on one machine"),
        })
    }

    fn values(self, workload: Workload, measure: &str) -> Option<(f64, f64)> {
        let value = |candidate| {
            let sample = self.report.sample(workload.name(), candidate, measure)?;
            (sample.value > 0.0).then_some(sample.value)
        };
        Some((value(self.ours)?, value(self.other)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Sample, Unit};

    fn target(name: &str, role: Role) -> Target {
        Target {
            name: name.to_owned(),
            url: String::new(),
            instance: String::new(),
            process: None,
            role,
        }
    }

    fn sample(candidate: &str, workload: Workload, measure: &str, value: f64) -> Sample {
        Sample {
            workload: workload.name().to_owned(),
            candidate: candidate.to_owned(),
            measure: measure.to_owned(),
            value,
            unit: Unit::MicrosecondsABlob,
        }
    }

    #[test]
    fn a_ratio_is_above_one_where_ours_is_better() {
        let update = Workload::BatchUpdate;
        let report = Report {
            samples: vec![
                sample("ours", update, CPU, 10.0),
                sample("bare", update, CPU, 5.0),
                sample("casd", update, CPU, 40.0),
                sample("ours", update, RATE, 300.0),
                sample("bare", update, RATE, 400.0),
            ],
            ..Report::default()
        };
        let targets = [
            target("ours", Role::Ours),
            target("bare", Role::Bare),
            target("casd", Role::Peer),
        ];
        let figures = figures(&report, &targets);
        let told: Vec<_> = figures
            .iter()
            .map(|figure| (figure.value, figure.is_reached()))
            .collect();
        assert_eq!(told, [(0.5, false), (4.0, true), (0.75, true)]);
        assert!(figures[0].question.contains("bare / ours"), "{}", figures[0].question);
    }

    #[test]
    fn what_was_not_measured_makes_no_figure() {
        let read = Workload::BatchRead;
        let report = Report {
            samples: vec![sample("ours", read, CPU, 10.0), sample("bare", read, CPU, 0.0)],
            ..Report::default()
        };
        let targets = [target("ours", Role::Ours), target("bare", Role::Bare)];
        assert_eq!(figures(&report, &targets), []);
    }
}
