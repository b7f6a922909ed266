//! A report as tables of text.

use std::fmt::Write as _;

use super::{Figure, Goal, Report, short};

pub(super) fn write(report: &Report) -> String {
    let mut text = String::new();
    let machine = &report.machine;
    push(
        &mut text,
        format_args!(
            "{}, {} threads, Linux {}",
            machine.processor, machine.threads, machine.kernel
        ),
    );
    for workload in report.workloads() {
        write_workload(&mut text, report, workload);
    }
    if !report.figures.is_empty() {
        write_figures(&mut text, &report.figures);
    }
    text
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to memory cannot fail");
}

fn write_workload(text: &mut String, report: &Report, workload: &str) {
    let candidates = report.names(|sample| &sample.candidate);
    push(text, format_args!("\n{workload}"));
    let mut head = format!("  {:<20} {:>9}", "", "");
    for candidate in &candidates {
        write!(head, " {candidate:>12}").expect("writing to memory cannot fail");
    }
    push(text, format_args!("{head}"));
    for measure in report.names(|sample| &sample.measure) {
        let samples: Vec<_> = candidates
            .iter()
            .map(|candidate| report.sample(workload, candidate, measure))
            .collect();
        let Some(unit) = samples.iter().flatten().map(|sample| sample.unit).next() else {
            continue;
        };
        let mut row = format!("  {measure:<20} {:>9}", unit.symbol());
        for sample in samples {
            let value = sample.map_or_else(|| "-".to_owned(), |sample| short(sample.value));
            write!(row, " {value:>12}").expect("writing to memory cannot fail");
        }
        push(text, format_args!("{row}"));
    }
    for note in report.notes_on(workload) {
        push(text, format_args!("  {}: {}", note.candidate, note.text));
    }
}

fn write_figures(text: &mut String, figures: &[Figure]) {
    push(text, format_args!("\nfigures"));
    for figure in figures {
        let goal = match figure.goal {
            Goal::AtLeast(goal) => format!(">= {}", short(goal)),
            Goal::AtMost(goal) => format!("<= {}", short(goal)),
        };
        let mark = if figure.is_reached() { "reached" } else { "MISSED" };
        push(
            text,
            format_args!(
                "  {:<62} {:>9}  {goal:<11} {mark}",
                figure.question,
                short(figure.value)
            ),
        );
        push(text, format_args!("      {}", figure.detail));
    }
}
