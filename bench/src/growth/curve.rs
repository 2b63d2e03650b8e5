//! What was measured at which size, and how it is written down.

use std::fmt::Write as _;

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Equal steps, from 0.
    Linear,
    /// Equal factors.
    Log,
}

/// What an axis shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// What, with its unit.
    pub label: &'static str,
    pub scale: Scale,
}

pub(crate) const fn log(label: &'static str) -> Axis {
    Axis {
        label,
        scale: Scale::Log,
    }
}

pub(crate) const fn linear(label: &'static str) -> Axis {
    Axis {
        label,
        scale: Scale::Linear,
    }
}

/// One line of a picture.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub name: &'static str,
    /// By size.
    pub points: Vec<(f64, f64)>,
}

/// One picture.
#[derive(Clone, Debug)]
pub(crate) struct Curve {
    /// The name of its file, without `.svg`.
    pub id: &'static str,
    pub title: &'static str,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

impl Curve {
    pub(crate) fn new(id: &'static str, title: &'static str, x: Axis, y: Axis) -> Self {
        Self {
            id,
            title,
            x,
            y,
            series: Vec::new(),
        }
    }

    /// Adds a point to the line of this name.
    pub(crate) fn add(&mut self, name: &'static str, x: f64, y: f64) {
        println!(
            "{:<22} {name:<34} {:>10} {:>12}",
            self.id,
            short(x),
            short(y)
        );
        match self.series.iter_mut().find(|series| series.name == name) {
            Some(series) => series.points.push((x, y)),
            None => self.series.push(Series {
                name,
                points: vec![(x, y)],
            }),
        }
    }

    /// The picture's place in a document, and all points below it.
    pub(crate) fn markdown(&self, folder: &str) -> String {
        let mut text = format!(
            "### {}\n\n![{}]({folder}/{}.svg)\n\n| {} |",
            self.title, self.title, self.id, self.x.label
        );
        // Writing to a string does not fail.
        for series in &self.series {
            let _ = write!(text, " {}, {} |", series.name, self.y.label);
        }
        text += "\n|---|";
        text += &"---|".repeat(self.series.len());
        text.push('\n');
        let mut sizes: Vec<f64> = self.points().map(|(x, _)| x).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup();
        for size in sizes {
            let _ = write!(text, "| {} |", short(size));
            for series in &self.series {
                let at = series.points.iter().find(|(x, _)| *x == size);
                let _ = write!(text, " {} |", at.map_or(String::new(), |(_, y)| short(*y)));
            }
            text.push('\n');
        }
        text
    }

    /// All points of all lines.
    pub(crate) fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series
            .iter()
            .flat_map(|series| &series.points)
            .copied()
    }
}

/// A number with three digits that count, large ones in groups of three.
pub(crate) fn short(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let size = value.abs().log10().floor() as i32;
    if size < 3 {
        let digits = (2 - size).clamp(0, 6) as usize;
        let text = format!("{value:.digits$}");
        return match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
            false => text,
        };
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (10.0, "10"),
            (100.0, "100"),
            (100_000.0, "100 000"),
            (1234.5, "1 234"),
            (12.345, "12.3"),
            (1.5, "1.5"),
            (0.01234, "0.0123"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn lines_share_a_table() {
        let mut curve = Curve::new("id", "Title", log("things"), linear("s"));
        curve.add("one", 10.0, 1.0);
        curve.add("two", 10.0, 2.0);
        curve.add("one", 100.0, 3.0);
        let text = curve.markdown("growth");
        assert!(text.contains("![Title](growth/id.svg)"));
        assert!(text.contains("| things | one, s | two, s |\n|---|---|---|\n"));
        assert!(text.ends_with("| 10 | 1 | 2 |\n| 100 | 3 |  |\n"));
    }
}
