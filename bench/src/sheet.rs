//! The figures of a run, printed as they come or as JSON at the end.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

#[derive(Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

pub(crate) struct Sheet {
    figures: Vec<Figure>,
    json: bool,
}

impl Sheet {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            figures: Vec::new(),
            json,
        }
    }

    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        if !self.json {
            println!("{name:<58} {value:>12.3} {unit}");
        }
        self.figures.push(Figure { name, value, unit });
    }

    /// Prints what has not been printed yet.
    pub(crate) fn finish(self) -> Result<()> {
        if self.json {
            println!("{}", serde_json::to_string_pretty(&self.figures)?);
        }
        Ok(())
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
