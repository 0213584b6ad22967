//! Figures for Prometheus, made of atomics. Register once, keep the handle, count without locks.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// A number that only grows.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// Now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// By so much.
    pub fn change(&self, by: i64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// To that.
    pub fn set(&self, to: i64) {
        self.0.store(to, Relaxed);
    }

    /// Now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds of the buckets of a [`Histogram`], in microseconds.
const BOUNDS: [u64; 14] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000,
    5_000_000, 30_000_000,
];

/// How long something takes, from 100 microseconds to 30 seconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug, Default)]
struct Buckets {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum: AtomicU64,
}

impl Histogram {
    /// One more that took that long.
    pub fn observe(&self, took: std::time::Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(count) = self.0.counts.get(at) {
            count.fetch_add(1, Relaxed);
        }
        self.0.sum.fetch_add(micros, Relaxed);
    }
}

#[derive(Clone)]
enum Kind {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

struct Metric {
    name: String,
    /// `reason="quota"`, or nothing.
    labels: String,
    help: &'static str,
    kind: Kind,
}

static ALL: Mutex<Vec<Metric>> = Mutex::new(Vec::new());

/// Adds a metric, or finds the one of that name and labels: a series stands once in the text.
fn register(name: &str, help: &'static str, kind: Kind) -> Kind {
    let (name, labels) = name.split_once('{').unwrap_or((name, ""));
    let labels = labels.trim_end_matches('}').to_owned();
    let name = format!("posthouse_{name}");
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |metric: &&Metric| {
        metric.name == name
            && metric.labels == labels
            && std::mem::discriminant(&metric.kind) == std::mem::discriminant(&kind)
    };
    if let Some(known) = all.iter().find(same) {
        return known.kind.clone();
    }
    // Series of one name stand together, whenever they were registered.
    let at = all
        .iter()
        .rposition(|metric| metric.name == name)
        .map_or(all.len(), |last| last + 1);
    let metric = Metric {
        name,
        labels,
        help,
        kind: kind.clone(),
    };
    all.insert(at, metric);
    kind
}

/// A new counter; the name may carry labels: `smtpd_refused_total{reason="relay"}`.
pub fn counter(name: &str, help: &'static str) -> Counter {
    match register(name, help, Kind::Counter(Counter::default())) {
        Kind::Counter(counter) => counter,
        _ => Counter::default(),
    }
}

/// A new gauge.
pub fn gauge(name: &str, help: &'static str) -> Gauge {
    match register(name, help, Kind::Gauge(Gauge::default())) {
        Kind::Gauge(gauge) => gauge,
        _ => Gauge::default(),
    }
}

/// A new histogram, in seconds.
pub fn histogram(name: &str, help: &'static str) -> Histogram {
    match register(name, help, Kind::Histogram(Histogram::default())) {
        Kind::Histogram(histogram) => histogram,
        _ => Histogram::default(),
    }
}

/// All of them in the text format of Prometheus.
pub fn text() -> String {
    let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let mut out = String::new();
    let mut last = "";
    for metric in all.iter() {
        let Metric {
            name,
            labels,
            help,
            kind,
        } = metric;
        if name != last {
            let what = match kind {
                Kind::Counter(_) => "counter",
                Kind::Gauge(_) => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {what}");
            last = name;
        }
        let braced = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{labels}}}")
        };
        match kind {
            Kind::Counter(counter) => drop(writeln!(out, "{name}{braced} {}", counter.get())),
            Kind::Gauge(gauge) => drop(writeln!(out, "{name}{braced} {}", gauge.get())),
            Kind::Histogram(histogram) => write_histogram(&mut out, name, labels, histogram),
        }
    }
    out
}

fn write_histogram(out: &mut String, name: &str, labels: &str, histogram: &Histogram) {
    let comma = if labels.is_empty() { "" } else { "," };
    let mut total = 0;
    let bounds = BOUNDS
        .iter()
        .map(|bound| (*bound as f64 / 1e6).to_string())
        .chain(["+Inf".to_owned()]);
    for (bound, count) in bounds.zip(&histogram.0.counts) {
        total += count.load(Relaxed);
        let _ = writeln!(
            out,
            "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {total}"
        );
    }
    let braced = if labels.is_empty() {
        String::new()
    } else {
        format!("{{{labels}}}")
    };
    let _ = writeln!(
        out,
        "{name}_sum{braced} {}",
        histogram.0.sum.load(Relaxed) as f64 / 1e6
    );
    let _ = writeln!(out, "{name}_count{braced} {total}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_stands_once_and_beside_those_of_its_name() {
        counter("twice_total{reason=\"a\"}", "Twice.").add_one();
        gauge("between", "Between.").set(1);
        counter("twice_total{reason=\"b\"}", "Twice.").add_one();
        counter("twice_total{reason=\"a\"}", "Twice.").add_one();
        let text = text();
        let series =
            "posthouse_twice_total{reason=\"a\"} 2\nposthouse_twice_total{reason=\"b\"} 1\n";
        assert!(text.contains(series), "{text}");
        assert_eq!(text.matches("# TYPE posthouse_twice_total").count(), 1);
    }

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let refused = counter("test_refused_total{reason=\"x\"}", "Refused.");
        refused.add(3);
        let took = histogram("test_seconds", "Time.");
        took.observe(std::time::Duration::from_micros(700));
        let text = text();
        assert!(text.contains("# TYPE posthouse_test_refused_total counter\nposthouse_test_refused_total{reason=\"x\"} 3\n"));
        assert!(text.contains("posthouse_test_seconds_bucket{le=\"0.0005\"} 0\n"));
        assert!(text.contains("posthouse_test_seconds_bucket{le=\"0.001\"} 1\n"));
        assert!(text.contains("posthouse_test_seconds_bucket{le=\"+Inf\"} 1\n"));
    }
}
