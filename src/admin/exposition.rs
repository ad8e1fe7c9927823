//! The Prometheus text exposition format, version 0.0.4.

use std::fmt::Write;

/// A writer of metrics.
#[derive(Default)]
pub struct Exposition {
    text: String,
    /// The names of the metrics to write. `None` means all.
    only: Option<&'static [&'static str]>,
}

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A value that only increases until the server restarts.
    Counter,
    /// A value that can increase and decrease.
    Gauge,
}

/// A histogram.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<B> {
    /// Upper bounds in ascending order, without infinity, each with its cumulative count.
    pub buckets: B,
    /// The sum of all observations.
    pub sum: f64,
    /// The number of observations.
    pub count: u64,
}

impl Exposition {
    /// Returns a writer that writes only the named metrics.
    pub fn only(names: &'static [&'static str]) -> Self {
        Exposition {
            only: Some(names),
            ..Exposition::default()
        }
    }

    fn includes(&self, name: &str) -> bool {
        self.only.is_none_or(|names| names.contains(&name))
    }

    /// Adds a metric. Each sample consists of label pairs, either empty or already formatted as
    /// `name="value"` with the value escaped, and a value.
    pub fn family<'a>(
        &mut self,
        name: &str,
        kind: MetricKind,
        help: &str,
        samples: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        if !self.includes(name) {
            return;
        }
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
        };
        self.header(name, kind, help);
        for (labels, value) in samples {
            let _ = match labels {
                "" => writeln!(self.text, "{name} {value}"),
                labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
            };
        }
    }

    /// Adds a histogram without labels.
    pub fn histogram(
        &mut self,
        name: &str,
        help: &str,
        histogram: Histogram<impl IntoIterator<Item = (f64, u64)>>,
    ) {
        if !self.includes(name) {
            return;
        }
        self.header(name, "histogram", help);
        let Histogram {
            buckets,
            sum,
            count,
        } = histogram;
        for (bound, count) in buckets {
            let _ = writeln!(self.text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(
            self.text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}"
        );
    }

    /// Adds a counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, MetricKind::Counter, help, [("", value as f64)]);
    }

    /// Adds a gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, MetricKind::Gauge, help, [("", value)]);
    }

    fn header(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Returns the text.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_valid_prometheus_text() {
        let mut out = Exposition::default();
        out.counter("a_total", "How many.\nReally.", 12_345_678_901);
        out.family(
            "b",
            MetricKind::Gauge,
            "Parts.",
            [(r#"part="x""#, 1.0), (r#"part="y""#, 0.5)],
        );
        let histogram = Histogram {
            buckets: [(0.0001, 1), (10.0, 3)],
            sum: 20.25,
            count: 4,
        };
        out.histogram("c_seconds", "Long.", histogram);
        assert_eq!(
            out.finish(),
            "# HELP a_total How many.\\nReally.\n# TYPE a_total counter\na_total 12345678901\n\
             # HELP b Parts.\n# TYPE b gauge\nb{part=\"x\"} 1\nb{part=\"y\"} 0.5\n\
             # HELP c_seconds Long.\n# TYPE c_seconds histogram\n\
             c_seconds_bucket{le=\"0.0001\"} 1\nc_seconds_bucket{le=\"10\"} 3\n\
             c_seconds_bucket{le=\"+Inf\"} 4\nc_seconds_sum 20.25\nc_seconds_count 4\n"
        );
    }

    #[test]
    fn unlisted_metrics_are_omitted() {
        let mut out = Exposition::only(&["a_total"]);
        out.counter("a_total", "Shown.", 1);
        out.gauge("b", "Not shown.", 1.0);
        let histogram = Histogram {
            buckets: [(1.0, 1)],
            sum: 1.0,
            count: 1,
        };
        out.histogram("c_seconds", "Not shown.", histogram);
        assert_eq!(
            out.finish(),
            "# HELP a_total Shown.\n# TYPE a_total counter\na_total 1\n"
        );
    }
}
