//! Sizes of files and functions.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A function longer than this is a fault.
const MAX_FUNCTION_LINES: usize = 70;
/// A file longer than this is a fault, unless a line of its head says why: `//! Long because …`.
const MAX_FILE_LINES: usize = 1000;
/// Files at home are shorter than this; longer ones are listed.
const USUAL_FILE_LINES: usize = 600;

struct Function {
    place: String,
    lines: usize,
}

/// Prints the figures and returns what is too long.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for folder in ["crates", "fuzz", "xtask"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut faults = Vec::new();
    let (mut functions, mut lengths, mut long) = (Vec::new(), Vec::new(), String::new());
    for path in &files {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root).unwrap_or(path).display().to_string();
        let lines = text.lines().count();
        lengths.push(lines);
        if lines > USUAL_FILE_LINES {
            let _ = writeln!(long, "  {lines:5}  {name}");
        }
        if lines > MAX_FILE_LINES
            && !text.lines().take(40).any(|l| l.starts_with("//! Long because"))
        {
            faults
                .push(format!("{name}: {lines} lines, at most {MAX_FILE_LINES} without a reason"));
        }
        if !name.contains("/tests/") && !text.starts_with("//!") {
            faults.push(format!("{name}: does not open with //!"));
        }
        let file = syn::parse_file(&text).with_context(|| name.clone())?;
        Finder { name: &name, functions: &mut functions }.visit_file(&file);
    }
    let too_long = functions.iter().filter(|f| f.lines > MAX_FUNCTION_LINES);
    faults.extend(
        too_long.map(|f| format!("{}: {} lines, at most {MAX_FUNCTION_LINES}", f.place, f.lines)),
    );
    print(&mut lengths, functions.iter().map(|f| f.lines).collect(), &long);
    Ok(faults)
}

fn print(files: &mut [usize], mut functions: Vec<usize>, long: &str) {
    files.sort_unstable();
    functions.sort_unstable();
    let at = |sorted: &[usize], share: usize| {
        sorted.get(sorted.len() * share / 100).copied().unwrap_or(0)
    };
    for (what, sorted) in [("files", &*files), ("functions", &functions)] {
        println!(
            "{:5} {what:9}  median {:4}  p90 {:4}  longest {:4}  lines in all {}",
            sorted.len(),
            at(sorted, 50),
            at(sorted, 90),
            sorted.last().copied().unwrap_or(0),
            sorted.iter().sum::<usize>(),
        );
    }
    if !long.is_empty() {
        print!("over {USUAL_FILE_LINES} lines:\n{long}");
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

struct Finder<'a> {
    name: &'a str,
    functions: &'a mut Vec<Function>,
}

impl Finder<'_> {
    fn add(&mut self, name: &syn::Ident, span: Span) {
        let lines = span.end().line - span.start().line + 1;
        let place = format!("{}:{} {name}", self.name, span.start().line);
        self.functions.push(Function { place, lines });
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.add(&item.sig.ident, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.add(&item.sig.ident, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.add(&item.sig.ident, block.span());
        }
        visit::visit_trait_item_fn(self, item);
    }
}
