//! The plots, as SVG.

use std::path::Path;

use load::Result;
use plotters::prelude::*;

use super::results::Results;
use super::table::short;

/// Draws every plot for which there is enough data.
pub fn draw(results: &Results, folder: &Path) -> Result<()> {
    bars(
        results,
        &folder.join("idle-bytes.svg"),
        "Resident bytes of each idle connection (logarithmic)",
        &["idle"],
        "bytes_per_connection",
    )?;
    bars(
        results,
        &folder.join("idle-bytes-tls.svg"),
        "Resident bytes of each idle TLS connection (logarithmic)",
        &["idle-tls"],
        "bytes_per_connection",
    )?;
    let mebibyte = 1.0 / 1_048_576.0;
    lines(
        results,
        &folder.join("idle-memory.svg"),
        &Axes {
            title: "Resident memory in MiB by number of idle connections",
            prefix: "idle-",
            whole: Some("idle"),
            figure: "resident_with_all",
            factor: mebibyte,
            logarithmic: false,
        },
    )?;
    lines(
        results,
        &folder.join("echo-cpu.svg"),
        &Axes {
            title: "Server CPU per ping and response in µs, by number of connections",
            prefix: "echo-",
            whole: None,
            figure: "server_cpu_us_per_message",
            factor: 1.0,
            logarithmic: true,
        },
    )?;
    lines(
        results,
        &folder.join("fan-out-time.svg"),
        &Axes {
            title: "Milliseconds until the last receiver has the event, by number of receivers",
            prefix: "fan-out-",
            whole: None,
            figure: "to_last_us.p50",
            factor: 1e-3,
            logarithmic: false,
        },
    )?;
    lines(
        results,
        &folder.join("fan-out-cpu.svg"),
        &Axes {
            title: "Server CPU per delivery in µs, by number of receivers",
            prefix: "fan-out-",
            whole: None,
            figure: "server_cpu_us_per_delivery",
            factor: 1.0,
            logarithmic: false,
        },
    )
}

/// One figure of measures that differ only in the number of connections.
struct Axes<'a> {
    title: &'a str,
    /// The part of the measures' names before the number.
    prefix: &'a str,
    /// Another measure of the same kind, with its number in the report.
    whole: Option<&'a str>,
    figure: &'a str,
    factor: f64,
    /// Whether the axis of connections is logarithmic.
    logarithmic: bool,
}

fn lines(results: &Results, file: &Path, axes: &Axes<'_>) -> Result<()> {
    let series: Vec<(&str, Vec<(f64, f64)>)> = SERVERS
        .iter()
        .map(|name| (*name, points(results, name, axes)))
        .filter(|(_, points)| points.len() > 1)
        .collect();
    let all = || series.iter().flat_map(|(_, points)| points);
    let (Some(right), Some(top)) = (
        all().map(|point| point.0).reduce(f64::max),
        all().map(|point| point.1).reduce(f64::max),
    ) else {
        return Ok(());
    };
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption(axes.title, ("sans-serif", 17))
        .x_label_area_size(32)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right * 1.02, 0.0..top * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_labels(if axes.logarithmic { 5 } else { 10 })
        .x_label_formatter(&|value| match axes.logarithmic {
            true => short(10_f64.powf(*value)),
            false => short(*value),
        })
        .y_label_formatter(&|value| short(*value))
        .draw()?;
    for (name, points) in series {
        let color = color(name);
        let width = if name == "h-realtime" { 3 } else { 1 };
        let line = color.stroke_width(width);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), line))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], line));
        chart.draw_series(
            points
                .iter()
                .map(|point| Circle::new(*point, 3, color.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(match axes.logarithmic {
            true => SeriesLabelPosition::UpperRight,
            false => SeriesLabelPosition::UpperLeft,
        })
        .background_style(WHITE.mix(0.85))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(root.present()?)
}

fn points(results: &Results, server: &str, axes: &Axes<'_>) -> Vec<(f64, f64)> {
    let mut points = Vec::new();
    for (id, _) in results.measures() {
        let number = match id.strip_prefix(axes.prefix) {
            Some(number) => number.parse().ok(),
            None if axes.whole == Some(id) => results.median(id, server, "connections"),
            None => None,
        };
        let value = results.median(id, server, axes.figure);
        if let (Some(number), Some(value)) = (number, value) {
            let number: f64 = number;
            let across = if axes.logarithmic {
                number.log10()
            } else {
                number
            };
            points.push((across, value * axes.factor));
        }
    }
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    points
}

fn bars(results: &Results, file: &Path, title: &str, ids: &[&str], figure: &str) -> Result<()> {
    let mut values = Vec::new();
    for name in SERVERS {
        let found = ids.iter().find_map(|id| results.median(id, name, figure));
        values.extend(
            found
                .filter(|value| *value >= 1.0)
                .map(|value| (name, value)),
        );
    }
    let Some(most) = values.iter().map(|(_, value)| *value).reduce(f64::max) else {
        return Ok(());
    };
    let rows = i32::try_from(values.len())?;
    let height = 60 + 26 * u32::try_from(values.len())?;
    let root = SVGBackend::new(file, (SIZE.0, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .caption(title, ("sans-serif", 17))
        .build_cartesian_2d((0.02..most * 60.0).log_scale(), 0..rows)?;
    for (row, (name, value)) in (0..).zip(values.iter().rev()) {
        let style = color(name).filled();
        let bar = Rectangle::new([(1.0, row), (*value, row + 1)], style);
        chart.draw_series([bar].map(|mut bar| {
            bar.set_margin(4, 4, 0, 0);
            bar
        }))?;
        let font = ("sans-serif", 14).into_font();
        let label = Text::new((*name).to_owned(), (0, 7), font.clone());
        let number = Text::new(short(*value), (0, 7), font);
        chart.draw_series([EmptyElement::at((0.025, row + 1)) + label])?;
        chart.draw_series([EmptyElement::at((value * 1.2, row + 1)) + number])?;
    }
    Ok(root.present()?)
}

fn color(name: &str) -> RGBColor {
    match name {
        "h-realtime" => RGBColor(200, 30, 45),
        "engine" => RGBColor(235, 130, 100),
        "floor" => RGBColor(60, 60, 60),
        "uWebSockets" => RGBColor(30, 100, 190),
        "fastwebsockets" => RGBColor(30, 140, 80),
        "tungstenite" => RGBColor(150, 90, 170),
        _ => RGBColor(150, 150, 150),
    }
}

/// The servers in the plots, in this order.
const SERVERS: [&str; 10] = [
    "floor",
    "engine",
    "h-realtime",
    "uWebSockets",
    "fastwebsockets",
    "tungstenite",
    "picows",
    "websockets",
    "socketify",
    "ws",
];

const SIZE: (u32, u32) = (760, 420);
