//! Tables for people.

use std::io::{self, Write};

use crate::console::printable;

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// A table, for people
    Table,
    /// JSON, for programs
    Json,
}

/// Rows of text in columns that are as wide as their widest cell.
pub struct Table<const N: usize>(Vec<[String; N]>);

impl<const N: usize> Table<N> {
    /// A table of these columns.
    pub fn new(header: [impl Into<String>; N]) -> Self {
        Self(vec![header.map(Into::into)])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: [String; N]) {
        self.0.push(cells);
    }

    /// Prints the rows.
    pub fn print(self, out: &mut dyn Write) -> io::Result<()> {
        let rows: Vec<_> = self.0.into_iter().map(|row| row.map(|cell| printable(&cell))).collect();
        let mut widths = [0; N];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in rows {
            let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
            writeln!(out, "{}", cells.collect::<String>().trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_fit_their_widest_cell() {
        let mut table = Table::new(["NAME", "PODS", "NOTE"]);
        table.row(["a".to_owned(), "10000".to_owned(), String::new()]);
        table.row(["größe\u{1b}[2J".to_owned(), "1".to_owned(), "x".to_owned()]);
        let mut text = Vec::new();
        table.print(&mut text).unwrap();
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "NAME       PODS   NOTE\na          10000\ngröße [2J  1      x\n"
        );
    }
}
