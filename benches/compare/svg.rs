//! A plot of curves over two logarithmic axes.

use std::fmt::Write;

pub struct Curve {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

impl Curve {
    pub fn new(name: &'static str) -> Self {
        Self { name, points: Vec::new() }
    }
}

pub struct Plot {
    pub title: &'static str,
    pub x: &'static str,
    pub y: &'static str,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 480.0;
/// Margins around the curves: left, top, right, bottom.
const MARGIN: [f64; 4] = [70.0, 45.0, 140.0, 50.0];
const COLOURS: [&str; 6] = ["#1b6ca8", "#c8553d", "#3a7d44", "#7b4fa3", "#b08900", "#4d4d4d"];

/// A logarithmic axis from one power of ten to another.
struct Axis {
    least: i32,
    most: i32,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min).log10().floor() as i32;
        let most = values.fold(0.0, f64::max).log10().ceil() as i32;
        Self { least, most: most.max(least + 1), from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.least)) / f64::from(self.most - self.least);
        self.from + share * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = (f64, i32)> {
        (self.least..=self.most).map(|power| (self.at(10f64.powi(power)), power))
    }
}

impl Plot {
    pub fn svg(&self, curves: &[Curve]) -> String {
        let [left, top, right, bottom] = [MARGIN[0], MARGIN[1], WIDTH - MARGIN[2], HEIGHT - MARGIN[3]];
        let points = || curves.iter().flat_map(|curve| curve.points.iter().copied());
        let x = Axis::over(points().map(|(x, _)| x), left, right);
        let y = Axis::over(points().map(|(_, y)| y), bottom, top);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        let text = |x: f64, y: f64, rest: &str, words: &str| {
            format!("<text x=\"{x:.1}\" y=\"{y:.1}\" {rest}>{words}</text>\n")
        };
        svg += &text(left, 25.0, "font-size=\"15\"", self.title);
        svg += &text((left + right) / 2.0, HEIGHT - 12.0, "text-anchor=\"middle\"", self.x);
        svg += &text(12.0, top - 12.0, "", self.y);
        for (at, power) in x.ticks() {
            svg += &line((at, top), (at, bottom));
            svg += &text(at, bottom + 18.0, "text-anchor=\"middle\"", &power_of_ten(power));
        }
        for (at, power) in y.ticks() {
            svg += &line((left, at), (right, at));
            svg += &text(left - 8.0, at + 4.0, "text-anchor=\"end\"", &power_of_ten(power));
        }
        for (curve, colour) in curves.iter().zip(COLOURS.iter().cycle()) {
            let path = curve.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x.at(*a), y.at(*b)));
            let path = path.collect::<Vec<_>>().join(" ");
            _ = writeln!(svg, "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{path}\"/>");
            if let Some((a, b)) = curve.points.last() {
                svg += &text(x.at(*a) + 8.0, y.at(*b) + 4.0, &format!("fill=\"{colour}\""), curve.name);
            }
        }
        svg + "</svg>\n"
    }
}

fn line(from: (f64, f64), to: (f64, f64)) -> String {
    format!("<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\n", from.0, from.1, to.0, to.1)
}

fn power_of_ten(power: i32) -> String {
    if (0..=6).contains(&power) { 10f64.powi(power).to_string() } else { format!("1e{power}") }
}
