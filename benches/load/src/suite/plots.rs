//! The plots, as SVG.

use std::path::Path;

use load::Result;
use plotters::prelude::*;

use super::results::Results;
use super::table::{short, whole};

/// Draws every plot for which there is enough data.
pub fn draw(results: &Results, folder: &Path) -> Result<()> {
    bars(
        results,
        &folder.join("idle-bytes.svg"),
        "Resident memory of each idle connection",
        &["idle"],
        "bytes_per_connection",
    )?;
    bars(
        results,
        &folder.join("idle-bytes-tls.svg"),
        "Resident memory of each idle TLS connection",
        &["idle-tls"],
        "bytes_per_connection",
    )?;
    let mebibyte = 1.0 / 1_048_576.0;
    lines(
        results,
        &folder.join("idle-memory.svg"),
        &Axes {
            title: "Resident memory with idle connections",
            across: "connections",
            up: "MiB",
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
            title: "CPU time of the server for a ping and its response",
            across: "connections (logarithmic)",
            up: "µs",
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
            title: "Time until the last receiver has the event",
            across: "receivers",
            up: "milliseconds",
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
            title: "CPU time of the server for each delivery of an event",
            across: "receivers",
            up: "µs",
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
    /// The descriptions of the axes, with their units.
    across: &'a str,
    up: &'a str,
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
    let (area, legend) = root.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .caption(axes.title, TITLE)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right * 1.02, 0.0..top * 1.1)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .x_desc(axes.across)
        .y_desc(axes.up)
        .axis_desc_style(TEXT)
        .label_style(TEXT)
        .x_labels(if axes.logarithmic { 5 } else { 10 })
        .x_label_formatter(&|value| match axes.logarithmic {
            true => whole(10_f64.powf(*value)),
            false => whole(*value),
        })
        .y_label_formatter(&|value| match value.fract() < 1e-6 {
            true => whole(*value),
            false => short(*value),
        })
        .draw()?;
    let mut rows: Vec<_> = (0..).zip(series).collect();
    // The widest line is below the others.
    rows.sort_by_key(|(_, (name, _))| *name != "h-realtime");
    for (row, (name, points)) in rows {
        let color = color(name);
        let width = if name == "h-realtime" { 3 } else { 1 };
        let line = color.stroke_width(width);
        chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
        chart.draw_series(
            points
                .iter()
                .map(|point| Circle::new(*point, 3, color.filled())),
        )?;
        let y = 52 + 22 * row;
        legend.draw(&PathElement::new([(4, y), (24, y)], line))?;
        legend.draw(&Text::new(name, (32, y - 6), TEXT))?;
    }
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
    let height = 112 + 26 * u32::try_from(values.len())?;
    let root = SVGBackend::new(file, (SIZE.0, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .margin(12)
        .margin_right(24)
        .caption(title, TITLE)
        .x_label_area_size(46)
        .y_label_area_size(136)
        .build_cartesian_2d((1.0..most * 3.0).log_scale(), 0..rows)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .light_line_style(WHITE)
        .bold_line_style(GRID)
        .y_labels(0)
        .y_label_formatter(&|_| String::new())
        .x_label_formatter(&|value| whole(*value))
        .x_desc("bytes of each connection (logarithmic)")
        .y_desc("server")
        .axis_desc_style(TEXT)
        .label_style(TEXT)
        .draw()?;
    for (row, (name, value)) in (0..).zip(values.iter().rev()) {
        let style = color(name).filled();
        let bar = Rectangle::new([(1.0, row), (*value, row + 1)], style);
        chart.draw_series([bar].map(|mut bar| {
            bar.set_margin(4, 4, 0, 0);
            bar
        }))?;
        let (_, top) = chart.backend_coord(&(1.0, row + 1));
        root.draw(&Text::new(*name, (NAMES_LEFT, top + 6), TEXT))?;
        let number = Text::new(short(*value), (6, 6), TEXT.into_font());
        chart.draw_series([EmptyElement::at((*value, row + 1)) + number])?;
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

const SIZE: (u32, u32) = (860, 420);
/// The width of the legend, which is beside the plot.
const LEGEND_WIDTH: u32 = 130;
/// The left end of the names of servers at their bars.
const NAMES_LEFT: i32 = 44;
const TITLE: (&str, u32) = ("sans-serif", 17);
const TEXT: (&str, u32) = ("sans-serif", 13);
const GRID: RGBColor = RGBColor(221, 221, 221);
