//! Which columns of the table fit the width, and how wide each is.

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    Activity,
    Machine,
    Title,
    Project,
    Branch,
    Context,
    Trend,
    Age,
    Id,
}

/// In the order in which they are shown.
const SHOWN: [Column; 9] = [
    Column::Activity,
    Column::Machine,
    Column::Title,
    Column::Project,
    Column::Branch,
    Column::Context,
    Column::Trend,
    Column::Age,
    Column::Id,
];

/// What the width is given to, one after the other: a column and the width up to which it grows. A column gets its first
/// share only whole.
const SHARES: [(Column, u16); 17] = [
    (Column::Activity, 10),
    (Column::Title, 4),
    (Column::Title, 8),
    (Column::Machine, 8),
    (Column::Age, 5),
    (Column::Context, 4),
    (Column::Project, 8),
    (Column::Title, 16),
    (Column::Branch, 8),
    (Column::Context, 10),
    (Column::Title, 24),
    (Column::Trend, 8),
    (Column::Id, 14),
    (Column::Activity, 28),
    (Column::Machine, 14),
    (Column::Branch, 20),
    (Column::Id, 32),
];

/// The columns that fit `width`, with a blank after each, and the width of each.
pub(super) fn fitting(width: u16) -> Vec<(Column, u16)> {
    let mut widths = [0_u16; SHOWN.len()];
    let mut left = width;
    let mut is_full = false;
    let position = |column| SHOWN.iter().position(|shown| *shown == column).unwrap_or(0);
    for (column, grown) in SHARES {
        let given = &mut widths[position(column)];
        let missing = grown.saturating_sub(*given);
        if *given == 0 {
            // Then no later column either, so that a wider terminal shows no column less.
            is_full |= left <= missing;
            if !is_full {
                *given = missing;
                left -= missing + 1;
            }
        } else {
            let more = missing.min(left);
            *given += more;
            left -= more;
        }
    }
    widths[position(Column::Title)] += left;
    let columns = SHOWN.into_iter().zip(widths);
    let mut columns: Vec<_> = columns.filter(|(_, width)| *width > 0).collect();
    if columns.iter().all(|(column, _)| *column != Column::Activity) {
        columns = vec![(Column::Title, width)];
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_never_take_more_than_the_width_and_leave_nothing_over() {
        for width in 0..300 {
            let columns = fitting(width);
            let gaps = u16::try_from(columns.len() - 1).unwrap();
            let taken: u16 = columns.iter().map(|(_, width)| width).sum();
            assert!(taken + gaps <= width.max(1) && taken + gaps + 1 >= width, "{width}: {columns:?}");
        }
    }

    #[test]
    fn a_wider_terminal_shows_no_column_less() {
        for width in 12..299 {
            let (narrow, wide) = (fitting(width), fitting(width + 1));
            assert!(narrow.iter().all(|(column, _)| wide.iter().any(|(other, _)| other == column)), "{width}");
        }
    }
}
