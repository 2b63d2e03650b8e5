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

/// What is wanted of the ratio of two medians.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Aim {
    AtLeast(f64),
    AtMost(f64),
    /// The row is there to be seen.
    None,
}

/// One row: a metric of one side divided by a metric of another.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub title: &'static str,
    pub unit: &'static str,
    pub of: (&'static str, Side),
    pub by: (&'static str, Side),
    pub aim: Aim,
}

/// A row with its figures.
#[derive(Clone, Serialize)]
pub(crate) struct Figures {
    pub title: &'static str,
    pub unit: &'static str,
    pub side: &'static str,
    pub value: Spread,
    pub reference: &'static str,
    pub reference_value: Spread,
    /// Round by round, so that what changed between rounds is in both halves.
    pub ratio: Spread,
    pub aim: Option<String>,
    pub met: Option<bool>,
}

impl Row {
    /// `None` if a side was not measured.
    pub(crate) fn figures(&self, samples: &Samples) -> Option<Figures> {
        let (of, by) = (
            samples.of(self.of.0, self.of.1),
            samples.of(self.by.0, self.by.1),
        );
        let ratios: Vec<f64> = of.iter().zip(by).map(|(of, by)| of / by).collect();
        let ratio = Spread::of(&ratios)?;
        let (aim, met) = match self.aim {
            Aim::AtLeast(aim) => (Some(format!("≥ {aim}")), Some(ratio.median >= aim)),
            Aim::AtMost(aim) => (Some(format!("≤ {aim}")), Some(ratio.median <= aim)),
            Aim::None => (None, None),
        };
        Some(Figures {
            title: self.title,
            unit: self.unit,
            side: self.of.1.name(),
            value: Spread::of(of)?,
            reference: self.by.1.name(),
            reference_value: Spread::of(by)?,
            ratio,
            aim,
            met,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut samples = Samples::default();
        for (frazil, kafka) in [(20.0, 10.0), (200.0, 50.0), (30.0, 10.0)] {
            samples.add("produce", Side::Local, frazil);
            samples.add("produce", Side::Kafka, kafka);
        }
        let row = Row {
            title: "produce",
            unit: "MB/s",
            of: ("produce", Side::Local),
            by: ("produce", Side::Kafka),
            aim: Aim::AtLeast(3.5),
        };
        let figures = row.figures(&samples).unwrap();
        assert_eq!(figures.ratio.median, 3.0);
        assert_eq!((figures.ratio.least, figures.ratio.most), (2.0, 4.0));
        assert_eq!(figures.value.median, 30.0);
        assert_eq!(figures.met, Some(false));
        let other = Row {
            by: ("produce", Side::Machine),
            ..row
        };
        assert!(other.figures(&samples).is_none());
    }

    #[test]
    fn the_median_of_an_even_number_is_between() {
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
        assert_eq!(Spread::of(&[]), None);
    }
}
