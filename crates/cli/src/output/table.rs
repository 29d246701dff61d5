//! Tables for people: columns side by side, no rules, no colours.

use comfy_table::{CellAlignment, ContentArrangement, presets};

use super::line;
use crate::failure::Outcome;

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Names and words.
    Left,
    /// Numbers.
    Right,
}

/// Blanks between two columns.
const GAP: u16 = 2;

/// A table in the making.
pub(crate) struct Table(comfy_table::Table);

impl Table {
    /// A table with these columns.
    pub(crate) fn new(columns: &[(&str, Align)]) -> Table {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|(name, _)| *name));
        for (column, (_, align)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, GAP));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Table(table)
    }

    /// Adds a row, a cell for each column.
    pub(crate) fn row<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.0.add_row(cells.into_iter().map(Into::into).collect::<Vec<String>>());
    }

    /// The lines, without blanks at their ends.
    pub(crate) fn text(&self) -> String {
        self.0.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    /// Prints the table; one without rows prints its header, so that it is seen to be empty.
    pub(crate) fn print(&self) -> Outcome {
        line(&self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_side_by_side() {
        let mut table =
            Table::new(&[("TOPIC", Align::Left), ("RECORDS", Align::Right), ("NOTE", Align::Left)]);
        table.row(["orders", "1,000", "a"]);
        table.row(["a-longer-name", "7", ""]);
        let expected = "TOPIC          RECORDS  NOTE\norders           1,000  a\na-longer-name        7";
        assert_eq!(table.text(), expected);
    }
}
