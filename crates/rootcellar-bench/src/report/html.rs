//! A report as one page with charts, which needs nothing from elsewhere.
//!
//! A chart has groups of bars, and in each group a bar for each candidate. Either it shows a measure, with a group for each workload;
//! or it shows what of a workload has the same unit, with a group for each measure. Shorter bars are better unless a chart says otherwise.

use std::fmt::Write as _;

use super::{Charts, Figure, Goal, Report, Sample, Unit, short};

const STYLE: &str = "
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 64rem; padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem }
table { border-collapse: collapse; width: 100% } td, th { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.reached { color: #1a7f37 } .missed { color: #b42318; font-weight: 600 } .note { color: #666; font-size: .85rem }
svg { width: 100%; height: auto; display: block } svg text { font: 12px system-ui, sans-serif; fill: #222 } svg .faint { fill: #777 }
.legend span { display: inline-block; margin-right: 1.2rem } .legend i { display: inline-block; width: .8rem; height: .8rem; margin-right: .35rem; vertical-align: -1px }
@media (prefers-color-scheme: dark) {
 body { color: #ddd; background: #161616 } td, th { border-color: #333 } svg text { fill: #ddd } svg .faint { fill: #999 } .note { color: #999 }
 .reached { color: #4cc26b } .missed { color: #ff7b6e } }
";

const COLORS: [&str; 8] = [
    "#3b7dd8", "#e08a2e", "#4aa564", "#b04fa8", "#8a8f98", "#c8443c", "#2aa3a3", "#8c6d3f",
];

const WIDTH: f64 = 960.0;
const LABEL_WIDTH: f64 = 150.0;
const VALUE_WIDTH: f64 = 90.0;
const BAR: f64 = 15.0;
const GAP: f64 = 9.0;

pub(super) fn write(report: &Report) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    let title = escape(&report.title);
    push(
        &mut page,
        format_args!("<title>{title}</title><style>{STYLE}</style>\n<h1>{title}</h1>"),
    );
    let machine = &report.machine;
    push(
        &mut page,
        format_args!(
            "<p class=\"note\">{}, {} threads, Linux {}. Shorter is better where nothing else is said. CPU is the processor time of all threads of the process.</p>",
            escape(&machine.processor),
            machine.threads,
            escape(&machine.kernel)
        ),
    );
    if !report.figures.is_empty() {
        write_figures(&mut page, &report.figures);
    }
    if !report.samples.is_empty() {
        write_legend(&mut page, report);
        match report.charts {
            Charts::ByMeasure => write_measures(&mut page, report),
            Charts::ByWorkload => write_workloads(&mut page, report),
        }
    }
    page.push_str("</html>\n");
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("writing to memory cannot fail");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn write_figures(page: &mut String, figures: &[Figure]) {
    page.push_str("<h2>Figures</h2>\n<table><tr><th>what<th class=\"number\">is<th class=\"number\">goal<th></tr>\n");
    for figure in figures {
        let goal = match figure.goal {
            Goal::AtLeast(goal) => format!("&ge; {}", short(goal)),
            Goal::AtMost(goal) => format!("&le; {}", short(goal)),
        };
        let (class, mark) = if figure.is_reached() {
            ("reached", "reached")
        } else {
            ("missed", "missed")
        };
        push(
            page,
            format_args!(
                "<tr><td>{}<div class=\"note\">{}</div><td class=\"number\">{}<td class=\"number\">{goal}<td class=\"{class}\">{mark}</tr>",
                escape(&figure.question),
                escape(&figure.detail),
                short(figure.value)
            ),
        );
    }
    page.push_str("</table>\n");
}

fn color(index: usize) -> &'static str {
    COLORS[index % COLORS.len()]
}

fn write_legend(page: &mut String, report: &Report) {
    page.push_str("<p class=\"legend\">");
    for (index, candidate) in report.names(|sample| &sample.candidate).into_iter().enumerate() {
        push(
            page,
            format_args!(
                "<span><i style=\"background:{}\"></i>{}</span>",
                color(index),
                escape(candidate)
            ),
        );
    }
    page.push_str("</p>\n");
}

/// A bar of a chart.
struct Bar<'a> {
    /// Of its group's first bar only.
    label: Option<&'a str>,
    candidate: usize,
    value: f64,
}

/// A chart for each measure, with a group for each workload.
fn write_measures(page: &mut String, report: &Report) {
    for measure in report.names(|sample| &sample.measure) {
        let groups = report.names(|sample| &sample.workload).into_iter().map(|workload| {
            let sample = |candidate: &str| report.sample(workload, candidate, measure);
            (workload, sample)
        });
        let (groups, unit) = groups_of(report, groups);
        let unit = unit.map_or_else(String::new, legend_of);
        push(
            page,
            format_args!("<h2>{} <span class=\"note\">{unit}</span></h2>", escape(measure)),
        );
        draw(page, &groups);
    }
}

/// Some charts for each workload: one for each unit, with a group for each measure that has it.
fn write_workloads(page: &mut String, report: &Report) {
    for workload in report.workloads() {
        push(page, format_args!("<h2>{}</h2>", escape(workload)));
        for note in report.notes_on(workload) {
            let (candidate, text) = (escape(&note.candidate), escape(&note.text));
            push(page, format_args!("<p class=\"note\">{candidate}: {text}</p>"));
        }
        for measures in measures_by_unit(report, workload) {
            let groups = measures.into_iter().map(|measure| {
                let sample = move |candidate: &str| report.sample(workload, candidate, measure);
                (measure, sample)
            });
            let (groups, unit) = groups_of(report, groups);
            let unit = unit.map_or_else(String::new, legend_of);
            push(page, format_args!("<p class=\"note\">{unit}</p>"));
            draw(page, &groups);
        }
    }
}

/// The measures of a workload, those of one unit together, in the order of their first mention.
fn measures_by_unit<'a>(report: &'a Report, workload: &str) -> Vec<Vec<&'a str>> {
    let mut by_unit: Vec<(Unit, Vec<&str>)> = Vec::new();
    for sample in report.samples.iter().filter(|sample| sample.workload == workload) {
        let measure = sample.measure.as_str();
        match by_unit.iter_mut().find(|(unit, _)| *unit == sample.unit) {
            Some((_, measures)) if measures.contains(&measure) => {}
            Some((_, measures)) => measures.push(measure),
            None => by_unit.push((sample.unit, vec![measure])),
        }
    }
    by_unit.into_iter().map(|(_, measures)| measures).collect()
}

fn legend_of(unit: Unit) -> String {
    match unit.is_better_when_more() {
        true => format!("{}, longer is better", unit.symbol()),
        false => unit.symbol().to_owned(),
    }
}

/// Groups of bars from their labels and what finds a candidate's sample, and their unit.
fn groups_of<'a, F>(report: &'a Report, groups: impl Iterator<Item = (&'a str, F)>) -> (Vec<Vec<Bar<'a>>>, Option<Unit>)
where
    F: Fn(&str) -> Option<&'a Sample>,
{
    let candidates = report.names(|sample| &sample.candidate);
    let mut unit = None;
    let group = |(label, sample): (&'a str, F)| {
        let mut bars = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            if let Some(sample) = sample(candidate) {
                unit = Some(sample.unit);
                bars.push(Bar {
                    label: bars.is_empty().then_some(label),
                    candidate: index,
                    value: sample.value,
                });
            }
        }
        bars
    };
    let groups = groups.map(group).collect();
    (groups, unit)
}

#[expect(clippy::cast_precision_loss, reason = "a chart has few bars")]
fn draw(page: &mut String, groups: &[Vec<Bar<'_>>]) {
    let bars: usize = groups.iter().map(Vec::len).sum();
    let height = bars as f64 * BAR + groups.len() as f64 * GAP;
    let most = groups
        .iter()
        .flatten()
        .map(|bar| bar.value)
        .fold(f64::MIN_POSITIVE, f64::max);
    push(
        page,
        format_args!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">"),
    );
    let mut y = GAP / 2.0;
    for group in groups {
        for bar in group {
            let width = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) * bar.value / most;
            let middle = y + BAR * 0.72;
            if let Some(label) = bar.label {
                push(
                    page,
                    format_args!(
                        "<text x=\"{}\" y=\"{middle:.1}\" text-anchor=\"end\">{}</text>",
                        LABEL_WIDTH - 8.0,
                        escape(label)
                    ),
                );
            }
            push(
                page,
                format_args!(
                    "<rect x=\"{LABEL_WIDTH}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\" fill=\"{}\"/>",
                    width.max(1.0),
                    BAR - 2.0,
                    color(bar.candidate)
                ),
            );
            push(
                page,
                format_args!(
                    "<text class=\"faint\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text>",
                    LABEL_WIDTH + width.max(1.0) + 6.0,
                    short(bar.value)
                ),
            );
            y += BAR;
        }
        y += GAP;
    }
    page.push_str("</svg>\n");
}
