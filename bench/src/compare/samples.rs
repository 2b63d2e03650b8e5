//! What was measured, and what rows are made of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::systems::Side;

/// All samples of one run, in the order of its rounds.
#[derive(Default)]
pub(crate) struct Samples {
    values: BTreeMap<Metric, Vec<f64>>,
    sources: BTreeMap<Metric, Vec<Sources>>,
}

/// Median, least and most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self {
            median: (low + high) / 2.0,
            least,
            most,
        })
    }
}

/// Which shares of what was consumed a broker of Frazil read from its store; it had the others in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sources {
    pub segments: f64,
    pub tables: f64,
}

impl Sources {
    /// What the broker's own counters tell of so many bytes.
    pub(crate) fn of(
        before: &BTreeMap<String, f64>,
        after: &BTreeMap<String, f64>,
        consumed: f64,
    ) -> Self {
        let counted = |name: &str| {
            let of = |counters: &BTreeMap<String, f64>| counters.get(name).copied();
            of(after).unwrap_or_default() - of(before).unwrap_or_default()
        };
        let of_tables = counted("frazil_cache_cold_get_bytes_total");
        let segments = counted("frazil_cache_get_bytes_total") - of_tables;
        Self {
            segments: (segments / consumed).min(1.0),
            tables: (counted("frazil_cache_cold_decoded_bytes_total") / consumed).min(1.0),
        }
    }

    /// What is neither.
    pub(crate) fn memory(self) -> f64 {
        (1.0 - self.segments - self.tables).max(0.0)
    }
}

impl Samples {
    pub(crate) fn add(&mut self, metric: &'static str, side: Side, value: f64) {
        self.values.entry((metric, side)).or_default().push(value);
    }

    pub(crate) fn of(&self, metric: &'static str, side: Side) -> &[f64] {
        self.values.get(&(metric, side)).map_or(&[], Vec::as_slice)
    }

    /// Notes where bytes came from that were consumed for this metric.
    pub(crate) fn add_sources(&mut self, metric: &'static str, side: Side, sources: Sources) {
        self.sources
            .entry((metric, side))
            .or_default()
            .push(sources);
    }

    /// Where they came from, at the median of the rounds.
    pub(crate) fn sources(&self, metric: Metric) -> Option<Sources> {
        let all = self.sources.get(&metric)?;
        let median = |of: fn(&Sources) -> f64| {
            let values: Vec<f64> = all.iter().map(of).collect();
            Some(Spread::of(&values)?.median)
        };
        Some(Sources {
            segments: median(|sources| sources.segments)?,
            tables: median(|sources| sources.tables)?,
        })
    }

    /// Whether anything was measured of a side.
    pub(crate) fn has(&self, side: Side) -> bool {
        self.values.keys().any(|(_, measured)| *measured == side)
    }

    /// Every sample, for whoever wants to calculate by himself.
    pub(crate) fn raw(&self) -> Vec<Raw<'_>> {
        self.values
            .iter()
            .map(|((metric, side), values)| Raw {
                metric,
                side: side.name(),
                values,
            })
            .collect()
    }
}

/// The samples of one metric of one side.
#[derive(Serialize)]
pub(crate) struct Raw<'a> {
    metric: &'a str,
    side: &'static str,
    values: &'a [f64],
}

/// What is wanted of the median of the ratios, or of the figure, if nothing stands beside it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// The row is there to be seen.
    Seen,
}

/// A metric of a side.
pub(crate) type Metric = (&'static str, Side);

/// One row: a metric of one side, divided by a metric of another if there is one.
#[derive(Clone)]
pub(crate) struct Row {
    pub title: String,
    pub unit: &'static str,
    pub of: Metric,
    pub by: Option<Metric>,
    pub aim: Aim,
}

/// A row with its figures.
#[derive(Clone, Serialize)]
pub(crate) struct Figures {
    pub title: String,
    pub unit: &'static str,
    pub side: &'static str,
    pub value: Spread,
    pub beside: Option<Beside>,
    pub aim: Option<String>,
    pub met: Option<bool>,
}

/// What a figure is compared with.
#[derive(Clone, Serialize)]
pub(crate) struct Beside {
    pub side: &'static str,
    pub value: Spread,
    /// Round by round, so that what changed between rounds is in both halves.
    pub ratio: Spread,
}

impl Row {
    /// `None` if the side was not measured; by itself and without an aim, if the other was not.
    pub(crate) fn figures(&self, samples: &Samples) -> Option<Figures> {
        let of = samples.of(self.of.0, self.of.1);
        let value = Spread::of(of)?;
        let beside = self.by.and_then(|(metric, side)| {
            let by = samples.of(metric, side);
            let ratios: Vec<f64> = of.iter().zip(by).map(|(of, by)| of / by).collect();
            Some(Beside {
                side: side.name(),
                value: Spread::of(by)?,
                ratio: Spread::of(&ratios)?,
            })
        });
        let aim = match (&beside, self.by) {
            (None, Some(_)) => Aim::Seen,
            _ => self.aim,
        };
        let judged = beside.as_ref().map_or(value, |beside| beside.ratio).median;
        let (aim, met) = match aim {
            Aim::AtLeast(aim) => (Some(format!("≥ {aim}")), Some(judged >= aim)),
            Aim::AtMost(aim) => (Some(format!("≤ {aim}")), Some(judged <= aim)),
            Aim::Seen => (None, None),
        };
        Some(Figures {
            title: self.title.clone(),
            unit: self.unit,
            side: self.of.1.name(),
            value,
            beside,
            aim,
            met,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(by: Option<Metric>, aim: Aim) -> Row {
        Row {
            title: "produce".to_owned(),
            unit: "MB/s",
            of: ("produce", Side::Local),
            by,
            aim,
        }
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut samples = Samples::default();
        for (frazil, kafka) in [(20.0, 10.0), (200.0, 50.0), (30.0, 10.0)] {
            samples.add("produce", Side::Local, frazil);
            samples.add("produce", Side::Kafka, kafka);
        }
        let ratio = row(Some(("produce", Side::Kafka)), Aim::AtLeast(3.5));
        let figures = ratio.figures(&samples).unwrap();
        let beside = figures.beside.unwrap();
        assert_eq!(beside.ratio.median, 3.0);
        assert_eq!((beside.ratio.least, beside.ratio.most), (2.0, 4.0));
        assert_eq!(figures.value.median, 30.0);
        assert_eq!(figures.met, Some(false));
        let alone = row(Some(("produce", Side::Machine)), Aim::AtLeast(1.0));
        let figures = alone.figures(&samples).unwrap();
        assert!(figures.beside.is_none());
        assert_eq!((figures.aim, figures.met), (None, None));
    }

    #[test]
    fn a_figure_with_nothing_beside_it_is_judged_by_itself() {
        let mut samples = Samples::default();
        samples.add("produce", Side::Local, 140.0);
        let figures = row(None, Aim::AtMost(140.0)).figures(&samples).unwrap();
        assert_eq!(figures.met, Some(true));
        let figures = row(None, Aim::AtMost(139.0)).figures(&samples).unwrap();
        assert_eq!(figures.met, Some(false));
        assert_eq!(figures.aim.as_deref(), Some("≤ 139"));
        assert!(row(None, Aim::Seen).figures(&Samples::default()).is_none());
    }

    #[test]
    fn what_is_not_read_from_the_store_was_in_memory() {
        let counters = |segments: f64, objects: f64, decoded: f64| {
            BTreeMap::from([
                (
                    "frazil_cache_get_bytes_total".to_owned(),
                    segments + objects,
                ),
                ("frazil_cache_cold_get_bytes_total".to_owned(), objects),
                ("frazil_cache_cold_decoded_bytes_total".to_owned(), decoded),
            ])
        };
        let (before, after) = (counters(5.0, 1.0, 2.0), counters(25.0, 11.0, 52.0));
        let sources = Sources::of(&before, &after, 100.0);
        assert_eq!((sources.segments, sources.tables), (0.2, 0.5));
        assert!((sources.memory() - 0.3).abs() < 1e-9);
        let twice = Sources::of(&before, &after, 10.0);
        assert_eq!(
            (twice.segments, twice.tables, twice.memory()),
            (1.0, 1.0, 0.0)
        );
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }
}
