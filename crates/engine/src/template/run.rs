//! A template at work: statements, scopes and macros.
//!
//! `set` writes into the innermost scope, and a loop makes one for every item, so
//! what a body sets is gone with the item, as in Jinja 2; namespaces are how
//! templates carry something out. A macro sees what the template's own level has
//! set, and its arguments.

mod expression;

use super::ast::{Apply, For, Macro, Program, Stmt, Target};
use super::fault::{Fault, failed};
use super::filters;
use super::meter::{Meter, Out};
use super::value::{List, Loop, Value};
use std::rc::Rc;

/// What comes after a statement.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

type Scope<'a> = Vec<(&'a str, Value)>;

/// Runs a template.
pub(super) fn run(
    program: &Program,
    meter: &Meter,
    variables: Vec<(&'static str, Value)>,
) -> Result<String, Fault> {
    let mut out = meter.main_out()?;
    let mut run = Run { program, meter, scopes: vec![variables], macros: Vec::new() };
    run.body(&program.body, &mut out)?;
    Ok(out.into_text())
}

struct Run<'a> {
    program: &'a Program,
    meter: &'a Meter,
    scopes: Vec<Scope<'a>>,
    /// Those whose definition has been passed.
    macros: Vec<&'a Macro>,
}

impl<'a> Run<'a> {
    fn body(&mut self, body: &'a [Stmt], out: &mut Out<'_>) -> Result<Flow, Fault> {
        self.meter.enter()?;
        for stmt in body {
            self.meter.step()?;
            match self.stmt(stmt, out)? {
                Flow::Next => {}
                flow => {
                    self.meter.leave();
                    return Ok(flow);
                }
            }
        }
        self.meter.leave();
        Ok(Flow::Next)
    }

    fn stmt(&mut self, stmt: &'a Stmt, out: &mut Out<'_>) -> Result<Flow, Fault> {
        match stmt {
            Stmt::Text(text) => out.push(text)?,
            Stmt::Emit(expr) => {
                let value = self.eval(expr)?;
                value.write(out).map_err(|fault| fault.at(expr.line))?;
            }
            Stmt::If(arms, otherwise) => {
                for (condition, body) in arms {
                    if self.eval(condition)?.is_true() {
                        return self.body(body, out);
                    }
                }
                return self.body(otherwise, out);
            }
            Stmt::For(inner) => self.for_loop(inner, out)?,
            Stmt::Set(target, expr) => {
                let value = self.eval(expr)?;
                self.assign(target, value).map_err(|fault| fault.at(expr.line))?;
            }
            Stmt::SetBlock(target, filters, body) => {
                let value = self.captured(body, filters)?;
                self.assign(target, value)?;
            }
            Stmt::FilterBlock(filters, body) => {
                self.captured(body, filters)?.write(out)?;
            }
            Stmt::With(values, body) => {
                let values = values
                    .iter()
                    .map(|(target, expr)| Ok((target, self.eval(expr)?)))
                    .collect::<Result<Vec<_>, Fault>>()?;
                self.scopes.push(Vec::new());
                for (target, value) in values {
                    self.assign(target, value)?;
                }
                let flow = self.body(body, out)?;
                self.scopes.pop();
                return Ok(flow);
            }
            Stmt::Macro(at) => self.define(*at),
            Stmt::Body(body) => return self.body(body, out),
            Stmt::Break => return Ok(Flow::Break),
            Stmt::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// A macro may be defined again by each pass over its definition.
    fn define(&mut self, at: usize) {
        let new = &self.program.macros[at];
        self.macros.retain(|known| known.name != new.name);
        self.macros.push(new);
    }

    fn for_loop(&mut self, inner: &'a For, out: &mut Out<'_>) -> Result<(), Fault> {
        let over = self.eval(&inner.over)?;
        let at = |fault: Fault| fault.at(inner.over.line);
        let mut items = over.items(self.meter).map_err(at)?;
        if let Some(only) = &inner.only {
            let mut kept = Vec::new();
            for item in items {
                self.scopes.push(Vec::new());
                self.assign(&inner.target, item.clone()).map_err(at)?;
                if self.eval(only)?.is_true() {
                    kept.push(item);
                }
                self.scopes.pop();
            }
            items = kept;
        }
        let Value::List(items) = self.meter.list(items)? else { return Ok(()) };
        if items.items.is_empty() {
            self.body(&inner.otherwise, out)?;
        }
        for (index, item) in items.items.iter().enumerate() {
            self.meter.step()?;
            let this = Value::Loop(Rc::new(Loop { items: Rc::<List>::clone(&items), at: index }));
            self.scopes.push(vec![("loop", this)]);
            self.assign(&inner.target, item.clone()).map_err(at)?;
            let flow = self.body(&inner.body, out)?;
            self.scopes.pop();
            if flow == Flow::Break {
                break;
            }
        }
        Ok(())
    }

    /// What a body renders, filtered.
    fn captured(&mut self, body: &'a [Stmt], filters: &'a [Apply]) -> Result<Value, Fault> {
        let mut out = self.meter.out()?;
        self.scopes.push(Vec::new());
        self.body(body, &mut out)?;
        self.scopes.pop();
        let mut value = out.into_value();
        for filter in filters {
            value = self.filter(value, filter)?;
        }
        Ok(value)
    }

    fn assign(&mut self, target: &'a Target, value: Value) -> Result<(), Fault> {
        match target {
            Target::Name(name) => {
                if let Some(scope) = self.scopes.last_mut() {
                    match scope.iter_mut().find(|(known, _)| known == name) {
                        Some(entry) => entry.1 = value,
                        None => scope.push((name, value)),
                    }
                }
            }
            Target::Attr(name, attr) => {
                let Value::Space(space) = self.lookup(name) else {
                    return failed(format!("{name:?} is no namespace"));
                };
                if matches!(value, Value::Space(_) | Value::Loop(_)) {
                    return failed("a namespace can't be kept in a namespace");
                }
                space.set(attr, value);
            }
            Target::Many(targets) => {
                let items = value.items(self.meter)?;
                if items.len() != targets.len() {
                    let (names, got) = (targets.len(), items.len());
                    return failed(format!("expected {names} values to unpack, got {got}"));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item)?;
                }
            }
        }
        Ok(())
    }

    /// The value of a name; undefined where it has none.
    fn lookup(&self, name: &str) -> Value {
        let found = self.scopes.iter().rev().flat_map(|scope| scope.iter().rev());
        let found =
            found.filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).next();
        found.unwrap_or(Value::Undefined)
    }

    fn filter(&mut self, value: Value, filter: &'a Apply) -> Result<Value, Fault> {
        let arguments = self.arguments(&filter.arguments)?;
        filters::apply(self.meter, &filter.name, &value, &arguments)
            .map_err(|fault| fault.at(filter.line))
    }

    fn call_macro(
        &mut self,
        called: &'a Macro,
        arguments: &super::arguments::Values<'a>,
    ) -> Result<Value, Fault> {
        if arguments.plain.len() > called.parameters.len() {
            let (expected, got) = (called.parameters.len(), arguments.plain.len());
            return failed(format!("{} takes {expected} arguments, got {got}", called.name));
        }
        let named = |name: &str| called.parameters.iter().any(|(known, _)| known == name);
        if let Some((name, _)) = arguments.named.iter().find(|(name, _)| !named(name)) {
            return failed(format!("{} has no parameter {name}", called.name));
        }
        let outside = self.scopes.split_off(1);
        self.scopes.push(Vec::new());
        for (at, (name, default)) in called.parameters.iter().enumerate() {
            let value = match (arguments.plain.get(at), arguments.named(name), default) {
                (Some(value), _, _) => value.clone(),
                (None, Some(value), _) => value.clone(),
                (None, None, Some(default)) => self.eval(default)?,
                (None, None, None) => Value::Undefined,
            };
            if let Some(scope) = self.scopes.last_mut() {
                scope.push((name, value));
            }
        }
        let mut out = self.meter.out()?;
        self.body(&called.body, &mut out)?;
        self.scopes.truncate(1);
        self.scopes.extend(outside);
        Ok(out.into_value())
    }
}
