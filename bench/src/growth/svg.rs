//! Draws a curve as SVG: axes with units, a grid, lines with their points. Nothing else is needed, so
//! no library is.

use std::fmt::Write as _;

use super::curve::{Axis, Curve, Scale, short};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
/// Room left of, right of, above and below what is plotted.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;
/// Colours that are told apart also by those who see few of them.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// From where to where an axis goes, and where its lines are.
struct Range {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

impl Range {
    fn of(axis: Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(0.0, f64::max);
        match axis.scale {
            Scale::Linear => {
                let step = step(most);
                let count = (most / step).ceil().max(1.0) as u32;
                Self {
                    scale: Scale::Linear,
                    low: 0.0,
                    high: f64::from(count) * step,
                    ticks: (0..=count).map(|n| f64::from(n) * step).collect(),
                }
            }
            Scale::Log => {
                // There is no place for nothing.
                let least = values.filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
                let least = if least.is_finite() { least } else { 1.0 };
                let first = least.log10().floor() as i32;
                let last = (most.max(least).log10().ceil() as i32).max(first + 1);
                Self {
                    scale: Scale::Log,
                    low: 10f64.powi(first),
                    high: 10f64.powi(last),
                    ticks: (first..=last).map(|n| 10f64.powi(n)).collect(),
                }
            }
        }
    }

    /// Where a value is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Log => {
                let at = value.max(self.low).log10() - self.low.log10();
                at / (self.high.log10() - self.low.log10())
            }
        }
    }
}

/// A step of 1, 2 or 5 times a power of ten, of which four to ten reach `most`.
fn step(most: f64) -> f64 {
    if most <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf((most / 10.0).log10().ceil());
    [0.5, 0.2]
        .into_iter()
        .map(|part| power * part)
        .filter(|step| most / step <= 10.0)
        .fold(power, f64::min)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// The picture.
pub(crate) fn draw(curve: &Curve) -> String {
    let xs = Range::of(
        curve.x,
        curve
            .points()
            .map(|(x, _)| x)
            .collect::<Vec<_>>()
            .into_iter(),
    );
    let ys = Range::of(
        curve.y,
        curve
            .points()
            .map(|(_, y)| y)
            .collect::<Vec<_>>()
            .into_iter(),
    );
    let across = |x: f64| LEFT + xs.place(x) * (WIDTH - LEFT - RIGHT);
    let down = |y: f64| HEIGHT - BOTTOM - ys.place(y) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(curve.title)
    );
    let (bottom, end) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    // Writing to a string does not fail.
    for tick in &xs.ticks {
        let (x, text) = (across(*tick), short(*tick));
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            bottom + 18.0
        );
    }
    for tick in &ys.ticks {
        let (y, text) = (down(*tick), short(*tick));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {y:.1}H{end}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            LEFT - 8.0,
            y + 4.0
        );
    }
    let _ = writeln!(
        out,
        "<path d=\"M{LEFT} {TOP}V{bottom}H{end}\" fill=\"none\" stroke=\"#333\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
         <text transform=\"translate(18 {:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (LEFT + end) / 2.0,
        HEIGHT - 16.0,
        escaped(curve.x.label),
        (TOP + bottom) / 2.0,
        escaped(curve.y.label)
    );
    for (at, series) in curve.series.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let points: Vec<String> = series
            .points
            .iter()
            .map(|(x, y)| format!("{:.1},{:.1}", across(*x), down(*y)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        );
        for (x, y) in &series.points {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\">\
                 <title>{}: {}</title></circle>",
                across(*x),
                down(*y),
                short(*x),
                short(*y)
            );
        }
        let y = TOP + 14.0 + 18.0 * at as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT + 12.0,
            y - 6.0,
            LEFT + 30.0,
            y,
            escaped(series.name)
        );
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::growth::curve::{linear, log};

    #[test]
    fn steps_are_round_and_few() {
        for (most, expected) in [
            (1.0, 0.1),
            (10.0, 1.0),
            (11.0, 2.0),
            (37.0, 5.0),
            (99.0, 10.0),
        ] {
            let step = step(most);
            assert!((step - expected).abs() < 1e-9, "{most}: {step}");
        }
    }

    #[test]
    fn ranges_hold_their_values() {
        let range = Range::of(log(""), [10.0, 90_000.0].into_iter());
        assert_eq!(range.ticks, [10.0, 100.0, 1e3, 1e4, 1e5]);
        assert!((range.place(10.0)).abs() < 1e-9);
        assert!((range.place(1000.0) - 0.5).abs() < 1e-9);
        let range = Range::of(linear(""), [3.0, 12.0].into_iter());
        assert_eq!(range.ticks.last(), Some(&12.0));
        assert!((range.place(3.0) - 0.25).abs() < 1e-9);
        // Nothing but nothing.
        let range = Range::of(log(""), [0.0].into_iter());
        assert_eq!(range.ticks, [1.0, 10.0]);
        assert_eq!(Range::of(linear(""), [0.0].into_iter()).high, 1.0);
    }

    #[test]
    fn every_point_and_label_is_in_the_picture() {
        let mut curve = Curve::new("id", "a < b", log("things"), linear("KiB & more"));
        curve.add("one", 10.0, 1.0);
        curve.add("one", 100.0, 3.0);
        curve.add("two", 100.0, 4.0);
        let picture = draw(&curve);
        assert_eq!(picture.matches("<circle").count(), 3);
        assert_eq!(picture.matches("<polyline").count(), 2);
        for text in ["a &lt; b", "things", "KiB &amp; more", ">one<", ">two<"] {
            assert!(picture.contains(text), "{text}");
        }
    }
}
