//! What was measured, and what rows are made of it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::systems::Side;

/// All samples of one run, in the order of its rounds.
#[derive(Default)]
pub(crate) struct Samples(BTreeMap<(&'static str, Side), Vec<f64>>);

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

impl Samples {
    pub(crate) fn add(&mut self, metric: &'static str, side: Side, value: f64) {
        self.0.entry((metric, side)).or_default().push(value);
    }

    pub(crate) fn of(&self, metric: &'static str, side: Side) -> &[f64] {
        self.0.get(&(metric, side)).map_or(&[], Vec::as_slice)
    }

    /// Whether anything was measured of a side.
    pub(crate) fn has(&self, side: Side) -> bool {
        self.0.keys().any(|(_, measured)| *measured == side)
    }

    /// Every sample, for whoever wants to calculate by himself.
    pub(crate) fn raw(&self) -> Vec<Raw<'_>> {
        self.0
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
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }
}
