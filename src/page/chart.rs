//! Small pictures of figures, as SVG that needs neither script nor style of its own; pure.

use std::fmt::Write as _;

use crate::recent::{COURSE_STEP, COURSE_STEPS, Step};

/// Width of a step of a course.
const STEP_WIDTH: usize = 2;
/// Height of a course.
const HEIGHT: u32 = 24;
/// What failed is seen however little it is beside what did not.
const ILL_MIN: u32 = 2;
/// Workers that are drawn one by one.
const BOXES_MAX: u32 = 10;

/// How it went: completed runs as an area, failed ones as bars before it. Nothing where nothing ran.
pub(super) fn course(steps: &[Step]) -> String {
    let most = steps.iter().map(|step| step.well.max(step.ill)).max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let width = COURSE_STEPS * STEP_WIDTH;
    let second = u64::from(most).div_ceil(COURSE_STEP);
    let mut svg = format!(
        "<svg class=\"course\" viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"the last five minutes, at most {second} a second\">"
    );
    for (class, least, count) in
        [("well", 1, (|step| step.well) as fn(&Step) -> u32), ("ill", ILL_MIN, |step| step.ill)]
    {
        let path = outline(steps.iter().map(|step| height(count(step), most, least)));
        if !path.is_empty() {
            let _: std::fmt::Result = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
        }
    }
    svg + "</svg>"
}

/// How high a step is drawn.
fn height(count: u32, most: u32, least: u32) -> u32 {
    if count == 0 {
        return 0;
    }
    let height = u64::from(count) * u64::from(HEIGHT) / u64::from(most.max(1));
    u32::try_from(height).unwrap_or(HEIGHT).max(least)
}

/// The outline of steps above a ground line, one command for each change of height.
fn outline(heights: impl Iterator<Item = u32>) -> String {
    let mut path = String::new();
    let (mut x, mut before) = (0, 0);
    for height in heights {
        if height != before {
            let from = if path.is_empty() { format!("M{x} {HEIGHT}") } else { format!("H{x}") };
            let _: std::fmt::Result = write!(path, "{from}V{}", HEIGHT - height);
            before = height;
        }
        x += STEP_WIDTH;
    }
    if before > 0 {
        let _: std::fmt::Result = write!(path, "H{x}V{HEIGHT}");
    }
    path
}

/// The route of new work between versions: a bar in parts, each as long as its share, the older version first.
pub(super) fn route(shares: &[u8]) -> String {
    let mut svg =
        "<svg class=\"route\" viewBox=\"0 0 100 8\" preserveAspectRatio=\"none\" aria-hidden=\"true\">".to_owned();
    let mut x = 0;
    for (at, share) in shares.iter().enumerate() {
        let class = if at + 1 == shares.len() { "new" } else { "old" };
        let _: std::fmt::Result = write!(svg, "<rect class=\"{class}\" x=\"{x}\" width=\"{share}\" height=\"8\"/>");
        x += u32::from(*share);
    }
    svg + "</svg>"
}

/// A pool: a box for each worker, filled where it is busy; many workers are one bar.
pub(super) fn pool(size: u32, busy: u64) -> String {
    let busy = u32::try_from(busy).unwrap_or(u32::MAX).min(size);
    if size == 0 {
        return String::new();
    }
    let (width, mut rects) = if size > BOXES_MAX {
        let filled = BOXES_MAX * 6 * busy / size;
        (
            BOXES_MAX * 6,
            format!("<rect width=\"60\" height=\"8\"/><rect class=\"busy\" width=\"{filled}\" height=\"8\"/>"),
        )
    } else {
        (size * 6, String::new())
    };
    if rects.is_empty() {
        for at in 0..size {
            let class = if at < busy { " class=\"busy\"" } else { "" };
            let _: std::fmt::Result = write!(rects, "<rect{class} x=\"{}\" width=\"5\" height=\"8\"/>", at * 6);
        }
    }
    format!(
        "<svg class=\"pool\" viewBox=\"0 0 {width} 8\" width=\"{width}\" height=\"8\" aria-hidden=\"true\">{rects}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_course_is_drawn_step_by_step() {
        let none = Step::default();
        assert_eq!(course(&[]), "");
        assert_eq!(course(&[none, none]), "");
        let svg = course(&[none, Step { well: 12, ill: 0 }, Step { well: 12, ill: 1 }, Step { well: 6, ill: 0 }]);
        assert!(svg.contains("<path class=\"well\" d=\"M2 24V0H6V12H8V24\"/>"), "{svg}");
        assert!(svg.contains("<path class=\"ill\" d=\"M4 24V22H6V24\"/>"), "one of 13 is seen: {svg}");
        assert!(svg.contains("at most 3 a second") && !svg.contains("style="), "{svg}");
    }

    #[test]
    fn what_dips_to_nothing_touches_the_ground() {
        assert_eq!(outline([4, 0, 4].into_iter()), "M0 24V20H2V24H4V20H6V24");
        assert_eq!(outline([0, 0].into_iter()), "");
    }

    #[test]
    fn a_route_is_as_long_as_its_shares() {
        let svg = route(&[90, 10]);
        assert!(
            svg.contains("class=\"old\" x=\"0\" width=\"90\"") && svg.contains("class=\"new\" x=\"90\" width=\"10\"")
        );
    }

    #[test]
    fn a_pool_shows_who_is_busy_and_a_large_one_how_many_are() {
        assert_eq!(pool(0, 0), "");
        assert_eq!(pool(3, 1).matches("<rect").count(), 3);
        assert_eq!(pool(3, 9).matches("class=\"busy\"").count(), 3);
        assert!(pool(200, 50).contains("<rect class=\"busy\" width=\"15\""), "{}", pool(200, 50));
    }
}
