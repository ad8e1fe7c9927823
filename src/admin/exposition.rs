//! The Prometheus text exposition format, version 0.0.4.

use std::fmt::Write;

/// Metrics being written.
#[derive(Default)]
pub struct Exposition {
    text: String,
}

/// What a metric's value does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, until the server starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
}

impl Exposition {
    /// Adds a metric: its samples are given as label pairs (already `name="value"`, the value
    /// escaped; or empty) and a value.
    pub fn family<'a>(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = match labels {
                "" => writeln!(self.text, "{name} {value}"),
                labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
            };
        }
    }

    /// Adds a counter without labels.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help, [("", value as f64)]);
    }

    /// Adds a gauge without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, Kind::Gauge, help, [("", value)]);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_as_prometheus_reads_it() {
        let mut out = Exposition::default();
        out.counter("a_total", "How many.\nReally.", 12_345_678_901);
        out.family(
            "b",
            Kind::Gauge,
            "Parts.",
            [(r#"part="x""#, 1.0), (r#"part="y""#, 0.5)],
        );
        assert_eq!(
            out.finish(),
            "# HELP a_total How many.\\nReally.\n# TYPE a_total counter\na_total 12345678901\n\
             # HELP b Parts.\n# TYPE b gauge\nb{part=\"x\"} 1\nb{part=\"y\"} 0.5\n"
        );
    }
}
