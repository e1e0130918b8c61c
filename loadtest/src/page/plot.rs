//! Plots as SVG that takes its colors from the page around it, so that light and dark are one drawing.
//!
//! The drawing library knows numbers, not names, for colors. So each color that the page decides is drawn as a number
//! that nothing else uses ([`Ink`]), and its name is put in afterwards.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::compare::number;

/// Width of bars and of lines, in units of their own; the page scales both to what it has, one column or all.
const BARS_WIDTH: u32 = 560;
const LINES_WIDTH: u32 = 1_080;

const FONT: &str = "sans-serif";
const FONT_SIZE: i32 = 13;

/// Height of a bar with its gap.
const BAR: i32 = 30;

/// A color that the page decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    /// Text that matters.
    Text,
    /// Text beside it.
    Faint,
    /// Lines of the grid.
    Grid,
    /// One of the colors that tell servers apart, by number.
    Server(u8),
    /// The yardstick.
    Floor,
    /// CPU or memory: of the server in user space, of the kernel, and the same of the load generator.
    Part(u8),
}

/// Colors that tell servers apart; further servers begin again.
pub(super) const SERVERS: u8 = 9;

impl Ink {
    const ALL: [Self; 17] = [
        Self::Text,
        Self::Faint,
        Self::Grid,
        Self::Floor,
        Self::Server(0),
        Self::Server(1),
        Self::Server(2),
        Self::Server(3),
        Self::Server(4),
        Self::Server(5),
        Self::Server(6),
        Self::Server(7),
        Self::Server(8),
        Self::Part(0),
        Self::Part(1),
        Self::Part(2),
        Self::Part(3),
    ];

    /// The name that the page's style knows.
    pub(super) fn name(self) -> String {
        match self {
            Self::Text => "var(--text)".to_owned(),
            Self::Faint => "var(--faint)".to_owned(),
            Self::Grid => "var(--grid)".to_owned(),
            Self::Floor => "var(--floor)".to_owned(),
            Self::Server(number) => format!("var(--server-{})", number % SERVERS),
            Self::Part(number) => format!("var(--part-{number})"),
        }
    }

    /// What it is drawn as.
    fn number(self) -> RGBColor {
        let place = Self::ALL.iter().position(|ink| *ink == self).expect("all are listed");
        RGBColor(0x10, 0x20, u8::try_from(place).expect("few"))
    }
}

impl From<Ink> for RGBColor {
    fn from(ink: Ink) -> Self {
        match ink {
            Ink::Server(number) => Ink::Server(number % SERVERS).number(),
            other => other.number(),
        }
    }
}

/// A bar of one or several parts.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    /// What is written behind it.
    pub(super) note: String,
    pub(super) parts: Vec<(f64, Ink)>,
}

/// A line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) label: String,
    pub(super) ink: Ink,
    pub(super) points: Vec<(f64, f64)>,
}

fn text(ink: Ink, anchor: Pos) -> TextStyle<'static> {
    (FONT, FONT_SIZE).into_font().color(&RGBColor::from(ink)).pos(anchor)
}

/// Draws with a color of the page in place of each number.
fn svg(width: u32, height: u32, draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>)) -> String {
    let mut out = String::new();
    {
        let root = SVGBackend::with_string(&mut out, (width, height)).into_drawing_area();
        draw(&root);
        root.present().expect(INTO_MEMORY);
    }
    for ink in Ink::ALL {
        let RGBColor(red, green, blue) = ink.number();
        out = out.replace(&format!("#{red:02X}{green:02X}{blue:02X}"), &ink.name());
    }
    // Inside HTML a drawing needs no namespace, and the page has its own idea of size and fonts.
    let size = format!("width=\"{width}\" height=\"{height}\" ");
    let font = format!("font-family=\"{FONT}\" ");
    out.replace("xmlns=\"http://www.w3.org/2000/svg\"", "role=\"img\"").replace(&size, "").replace(&font, "")
}

const INTO_MEMORY: &str = "drawing into memory works";

/// Horizontal bars from zero, one below the other.
pub(super) fn bars(bars: &[Bar]) -> String {
    let longest = bars.iter().map(|bar| bar.label.chars().count()).max().unwrap_or(0);
    let left = 16 + i32::try_from(longest).unwrap_or(20) * 8;
    let right = BARS_WIDTH.cast_signed() - 170;
    // What shrank, as memory may, has no length.
    let sum = |bar: &Bar| bar.parts.iter().map(|(value, _)| value.max(0.0)).sum::<f64>();
    let most = bars.iter().map(sum).fold(f64::MIN_POSITIVE, f64::max);
    let height = BAR * i32::try_from(bars.len()).expect("few") + 4;
    svg(BARS_WIDTH, height.cast_unsigned(), |root| {
        for (row, bar) in (0..).zip(bars) {
            let (top, middle) = (row * BAR + 5, row * BAR + BAR / 2 + 1);
            let label = text(Ink::Text, Pos::new(HPos::Right, VPos::Center));
            root.draw(&Text::new(bar.label.clone(), (left - 10, middle), label)).expect(INTO_MEMORY);
            let mut end = f64::from(left);
            for (value, ink) in &bar.parts {
                let from = end;
                end += value.max(0.0) / most * f64::from(right - left);
                // A gap of two between parts; nothing is thinner than a hair.
                let corners = [(from as i32, top), ((end as i32 - 2).max(from as i32 + 1), top + BAR - 8)];
                root.draw(&Rectangle::new(corners, RGBColor::from(*ink).filled())).expect(INTO_MEMORY);
            }
            let note = text(Ink::Faint, Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(bar.note.clone(), (end as i32 + 8, middle), note)).expect(INTO_MEMORY);
        }
    })
}

/// Latencies over the logarithm of how rare they are, both axes logarithmic: the tail is as wide as the rest.
pub(super) fn percentiles(lines: &[Line]) -> String {
    let lines = lines.iter().map(|line| Line {
        points: line.points.iter().map(|(percentile, millis)| (nines(*percentile), *millis)).collect(),
        ..line.clone()
    });
    let lines = lines.collect::<Vec<_>>();
    let (x, y) = (extent(&lines, |point| point.0), extent(&lines, |point| point.1));
    let low = 10f64.powf((y.start.max(0.001)).log10().floor());
    let high = 10f64.powf(y.end.max(low * 1.01).log10().ceil());
    let label_x = |nines: &f64| match nines.round() as u32 {
        0 => "0 %".to_owned(),
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        more => format!("99.{} %", "9".repeat(more as usize - 2)),
    };
    let label_y = |millis: &f64| {
        if *millis >= 1000.0 {
            format!("{} s", number_short(millis / 1000.0))
        } else {
            format!("{} ms", number_short(*millis))
        }
    };
    let x_labels = x.end.ceil() as usize + 1;
    chart(&lines, 0.0..x.end.max(1.0), (low..high).log_scale(), x_labels, &label_x, &label_y)
}

/// How a figure moved over time.
pub(super) fn over_time(lines: &[Line]) -> String {
    let (x, y) = (extent(lines, |point| point.0), extent(lines, |point| point.1));
    let seconds = |seconds: &f64| format!("{} s", number_short(*seconds));
    chart(lines, 0.0..x.end.max(1.0), 0.0..(y.end * 1.05).max(f64::MIN_POSITIVE), 8, &seconds, &|value| number(*value))
}

/// How a figure grows with a number of something: logarithmic where that spans more than two powers of ten, so that
/// each of its points is seen.
pub(super) fn curve(lines: &[Line]) -> String {
    let x = extent(lines, |point| point.0);
    if x.end <= 100.0 * x.start {
        let y = extent(lines, |point| point.1);
        let y = 0.0..(y.end * 1.05).max(f64::MIN_POSITIVE);
        return chart(lines, 0.0..x.end.max(1.0), y, 8, &|x| number(*x), &|value| number(*value));
    }
    let lines = lines.iter().map(|line| Line {
        points: line.points.iter().map(|(x, y)| (x.max(1.0).log10(), *y)).collect(),
        ..line.clone()
    });
    let lines = lines.collect::<Vec<_>>();
    let y = extent(&lines, |point| point.1);
    let y = 0.0..(y.end * 1.05).max(f64::MIN_POSITIVE);
    let powers = x.end.log10().ceil().max(1.0);
    chart(&lines, 0.0..powers, y, powers as usize + 1, &|x| number(10f64.powf(*x).round()), &|value| number(*value))
}

/// A percentile as the number of nines that it has: 90 is 1, 99.9 is 3.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).max(1e-9).log10()
}

fn number_short(value: f64) -> String {
    format!("{}", (value * 1000.0).round() / 1000.0)
}

fn extent(lines: &[Line], of: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
    let values = lines.iter().flat_map(|line| &line.points).map(of);
    let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { 0.0..1.0 } else { low..high }
}

fn chart<Y>(
    lines: &[Line],
    x: Range<f64>,
    y: Y,
    x_labels: usize,
    label_x: &dyn Fn(&f64) -> String,
    label_y: &dyn Fn(&f64) -> String,
) -> String
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    const HEIGHT: u32 = 360;
    svg(LINES_WIDTH, HEIGHT, |root| {
        let mut builder = ChartBuilder::on(root);
        builder.margin_top(10).margin_right(150).x_label_area_size(26).y_label_area_size(66);
        let mut chart = builder.build_cartesian_2d(x, y).expect(INTO_MEMORY);
        let faint = text(Ink::Faint, Pos::new(HPos::Center, VPos::Center));
        let mut mesh = chart.configure_mesh();
        mesh.x_labels(x_labels).y_labels(6).x_label_formatter(label_x).y_label_formatter(label_y).label_style(faint);
        mesh.bold_line_style(RGBColor::from(Ink::Grid))
            .light_line_style(TRANSPARENT)
            .axis_style(RGBColor::from(Ink::Grid));
        mesh.draw().expect(INTO_MEMORY);
        let mut ends = Vec::new();
        for line in lines {
            let style = RGBColor::from(line.ink).stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.iter().copied(), style)).expect(INTO_MEMORY);
            if let Some(end) = line.points.last() {
                ends.push((chart.backend_coord(end), line));
            }
        }
        // Each line is named at its end; names that would touch move apart.
        ends.sort_by_key(|((_, y), _)| *y);
        let mut free = i32::MIN;
        for ((x, y), line) in ends {
            let y = y.max(free);
            free = y + FONT_SIZE + 2;
            let style = text(line.ink, Pos::new(HPos::Left, VPos::Center));
            root.draw(&Text::new(line.label.clone(), (x + 8, y), style)).expect(INTO_MEMORY);
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::STYLE;
    use super::*;
    use crate::peers::PEERS;

    #[test]
    fn drawings_take_every_color_from_the_page_and_need_nothing_else() {
        let line = Line {
            label: "one <b>".to_owned(),
            ink: Ink::Server(9),
            points: vec![(0.0, 1.0), (99.0, 20.0), (99.9, 3000.0)],
        };
        let bar =
            Bar { label: "one".to_owned(), note: "1".to_owned(), parts: vec![(-1.0, Ink::Part(0)), (0.0, Ink::Floor)] };
        for drawing in [
            percentiles(std::slice::from_ref(&line)),
            over_time(std::slice::from_ref(&line)),
            curve(&[line]),
            bars(&[bar]),
        ] {
            assert!(drawing.contains("var(--") && !drawing.contains("http") && !drawing.contains("\"#"), "{drawing}");
            assert!(!drawing.contains("<b>"), "{drawing}");
        }
    }

    #[test]
    fn every_server_of_a_comparison_has_a_color_and_the_page_knows_each_in_light_and_dark() {
        let servers = PEERS.iter().map(|peer| if peer.takes_many { 2 } else { 1 }).sum::<u8>();
        assert!(servers <= SERVERS, "{servers} servers");
        for ink in Ink::ALL {
            let name = ink.name().replace("var(", "").replace(')', ": ");
            assert_eq!(STYLE.matches(&name).count(), 2, "{name}");
        }
    }

    #[test]
    fn a_plot_of_nothing_is_a_plot() {
        let line = Line { label: "none".to_owned(), ink: Ink::Floor, points: Vec::new() };
        let lines = [line];
        for drawing in [percentiles(&lines), over_time(&lines), curve(&lines), bars(&[])] {
            assert!(drawing.contains("<svg"), "{drawing}");
        }
    }
}
