//! Plots of two kinds of numbers, in SVG, with logarithmic axes.

use std::fmt::Write as _;

use crate::measure::Spread;
use crate::report::Point;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 64.0;
/// The least distance of two labels, one above the other.
const LINE: f64 = 17.0;
/// Colours that differ also for those who do not see all of them; the first is for ours.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#8a5a00", "#aa4499", "#555555"];

/// What stands around a plot.
pub(crate) struct Frame {
    pub(crate) plot: &'static str,
    pub(crate) title: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// How a value of the horizontal axis is shown.
    pub(crate) show_x: fn(f64) -> String,
}

/// Where values lie on an axis.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn at(&self, value: f64) -> f64 {
        let part = (value.ln() - self.low.ln()) / (self.high.ln() - self.low.ln());
        self.from + (self.to - self.from) * part
    }
}

/// Round numbers between two values: 1, 2 and 5 times the powers of ten, or fewer of them where there are many.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let steps: &[f64] = if high / low > 200.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    all.filter(|tick| (low..=high).contains(tick)).collect()
}

/// Draws the points that belong to the frame; `None` when there are none.
pub(crate) fn draw(frame: &Frame, points: &[Point]) -> Option<String> {
    let points: Vec<&Point> = points.iter().filter(|point| point.plot == frame.plot).collect();
    let fold = |of: fn(&Point) -> f64, pick: fn(f64, f64) -> f64| points.iter().map(|point| of(point)).reduce(pick);
    let x = Axis {
        low: fold(|point| point.x, f64::min)?,
        high: fold(|point| point.x, f64::max)? * 1.000_001,
        from: LEFT,
        to: WIDTH - RIGHT,
    };
    let y = Axis {
        low: fold(|point| point.y.low, f64::min)? * 0.8,
        high: fold(|point| point.y.high, f64::max)? * 1.25,
        from: HEIGHT - BOTTOM,
        to: TOP,
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    text(&mut svg, LEFT, 28.0, "start", "font-size=\"16\" font-weight=\"bold\"", frame.title);
    axes(&mut svg, frame, &points, &x, &y);
    let labels = lines(&mut svg, &points, &x, &y);
    for (place, colour, series) in spread_out(labels) {
        let look = format!("fill=\"{colour}\"");
        text(&mut svg, WIDTH - RIGHT + 12.0, place + 4.0, "start", &look, series);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, look: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {look}>{words}</text>");
}

fn axes(svg: &mut String, frame: &Frame, points: &[&Point], x: &Axis, y: &Axis) {
    for tick in ticks(y.low, y.high) {
        let at = y.at(tick);
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>",
            x.from, x.to
        );
        text(svg, x.from - 8.0, at + 4.0, "end", "fill=\"#333333\"", &format!("{tick}"));
    }
    let mut places: Vec<f64> = points.iter().map(|point| point.x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    for place in places {
        let at = x.at(place);
        let (bottom, tip) = (y.from, y.from + 5.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom:.1}\" y2=\"{tip:.1}\" stroke=\"#333333\"/>"
        );
        text(svg, at, y.from + 21.0, "middle", "fill=\"#333333\"", &(frame.show_x)(place));
    }
    let (left, right, bottom) = (x.from, x.to, y.from);
    let _ = writeln!(
        svg,
        "<line x1=\"{left:.1}\" x2=\"{right:.1}\" y1=\"{bottom:.1}\" y2=\"{bottom:.1}\" stroke=\"#333333\"/>"
    );
    text(svg, (x.from + x.to) / 2.0, HEIGHT - 16.0, "middle", "", frame.x);
    text(svg, LEFT, TOP - 10.0, "end", "", frame.y);
}

/// A line a series, with its quartiles; where each ends, its colour and its name.
fn lines(svg: &mut String, points: &[&Point], x: &Axis, y: &Axis) -> Vec<(f64, &'static str, &'static str)> {
    let mut names: Vec<&'static str> = Vec::new();
    for point in points {
        if !names.contains(&point.series) {
            names.push(point.series);
        }
    }
    let mut labels = Vec::new();
    for (series, colour) in names.into_iter().zip(COLOURS.iter().cycle()) {
        let ours = series.starts_with("set");
        let of_series: Vec<&&Point> = points.iter().filter(|point| point.series == series).collect();
        let place = |point: &Point| format!("{:.1},{:.1}", x.at(point.x), y.at(point.y.median));
        let path: Vec<String> = of_series.iter().map(|point| place(point)).collect();
        let width = if ours { 3.0 } else { 1.8 };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>",
            path.join(" ")
        );
        for point in &of_series {
            let Spread { low, median, high } = point.y;
            let (at, low, median, high) = (x.at(point.x), y.at(low), y.at(median), y.at(high));
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{low:.1}\" y2=\"{high:.1}\" stroke=\"{colour}\" \
                 stroke-width=\"1.2\"/><circle cx=\"{at:.1}\" cy=\"{median:.1}\" r=\"3.2\" fill=\"{colour}\"/>"
            );
        }
        if let Some(last) = of_series.last() {
            labels.push((y.at(last.y.median), *colour, series));
        }
    }
    labels
}

/// Moves labels apart that would lie on each other.
fn spread_out<T, U>(mut labels: Vec<(f64, T, U)>) -> Vec<(f64, T, U)> {
    labels.sort_by(|one, other| one.0.total_cmp(&other.0));
    for _ in 0..100 {
        for at in 1..labels.len() {
            let overlap = LINE - (labels[at].0 - labels[at - 1].0);
            if overlap > 0.0 {
                labels[at - 1].0 -= overlap / 2.0;
                labels[at].0 += overlap / 2.0;
            }
        }
    }
    labels
}
