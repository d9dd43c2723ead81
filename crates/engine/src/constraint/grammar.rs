//! From a constraint's text to a grammar over bytes, after everything that
//! could make that expensive has been counted.
//!
//! The counts come first since the library's own limits don't cover all it does:
//! it recurses once a property and once a reference, compares patterns of
//! properties, and branches, with each other, and has a state for every remainder
//! of a `multipleOf`. Deliberately absent: tokens.

use llguidance::JsonCompileOptions;
use llguidance::api::{ParserLimits, TopLevelGrammar};
use peerproof_wire::{Constraint, Form};
use serde_json::{Value, json};

use super::{ConstraintError, RULES, name};

/// What a schema may have and what following it may take. All are part of
/// [`RULES`]: with other numbers, two parties could disagree about an answer.
pub mod limits {
    /// Values nested in each other.
    pub const MAX_DEPTH: usize = 64;
    /// Values in all.
    pub const MAX_VALUES: usize = 8_192;
    /// Members of all `properties` together.
    pub const MAX_PROPERTIES: usize = 1_024;
    /// Members of all `patternProperties` together.
    pub const MAX_PATTERN_PROPERTIES: usize = 16;
    /// References.
    pub const MAX_REFERENCES: usize = 256;
    /// Branches of all `allOf` and `oneOf` together.
    pub const MAX_BRANCHES: usize = 64;
    /// Bytes of one `pattern`, and of each name in `patternProperties`.
    pub const MAX_PATTERN_BYTES: usize = 1_024;
    /// Digits after the point of a `multipleOf`.
    pub const MAX_MULTIPLE_DIGITS: u32 = 6;
    /// The least common multiple of every `multipleOf`, in units of the last digit that any has.
    pub const MAX_MULTIPLE: u64 = 10_000;
    /// That number times how many there are.
    pub const MAX_REMAINDERS: u64 = 100_000;
    /// Symbols of the grammar that a schema becomes.
    pub const MAX_GRAMMAR: usize = 100_000;
    /// Parts of expressions made to begin with, and while a lexer is set up.
    pub const MAX_FIRST_FUEL: u64 = 1_000_000;
    /// Parts of expressions made for one mask.
    pub const MAX_STEP_FUEL: u64 = 200_000;
    /// Parser items made for one mask.
    pub const MAX_STEP_ITEMS: usize = 50_000;
    /// Parser items at one place of the text.
    pub const MAX_ROW_ITEMS: usize = 2_000;
    /// States of the lexer of one job.
    pub const MAX_LEXER_STATES: usize = 20_000;
    /// White space between two parts of JSON, in characters.
    pub const MAX_SPACE: usize = 32;
}

/// A constraint whose size is known to be within the limits.
#[derive(Debug)]
pub(crate) struct Source {
    schema: Value,
}

impl Source {
    pub(crate) fn new(constraint: &Constraint) -> Result<Self, ConstraintError> {
        if constraint.rules != RULES {
            return Err(ConstraintError::Rules { got: constraint.rules.clone() });
        }
        let mut schema = match &constraint.form {
            Form::JsonObject => json!({"type": "object"}),
            Form::JsonSchema(text) => parsed(text)?,
            form @ Form::Regex(_) => return Err(ConstraintError::Form { got: name(form) }),
        };
        options().apply_to(&mut schema);
        Ok(Self { schema })
    }

    pub(super) fn grammar(&self) -> TopLevelGrammar {
        TopLevelGrammar::from_json_schema(self.schema.clone())
    }
}

/// How the library reads a schema: as JSON Schema says, or not at all.
fn options() -> JsonCompileOptions {
    JsonCompileOptions {
        whitespace_pattern: Some(format!("[\\x20\\x0A\\x0D\\x09]{{1,{}}}", limits::MAX_SPACE)),
        ..JsonCompileOptions::default()
    }
}

pub(super) fn parser_limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: limits::MAX_ROW_ITEMS,
        initial_lexer_fuel: limits::MAX_FIRST_FUEL,
        step_lexer_fuel: limits::MAX_STEP_FUEL,
        step_max_items: limits::MAX_STEP_ITEMS,
        max_lexer_states: limits::MAX_LEXER_STATES,
        max_grammar_size: limits::MAX_GRAMMAR,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

fn parsed(text: &str) -> Result<Value, ConstraintError> {
    let syntax = |got: String| ConstraintError::Syntax { got };
    let schema: Value = serde_json::from_str(text).map_err(|error| syntax(error.to_string()))?;
    let Value::Object(members) = &schema else {
        return Err(syntax("a JSON value of another type".into()));
    };
    if members.contains_key("x-guidance") {
        return Err(ConstraintError::Schema { reason: "x-guidance is not supported".into() });
    }
    let mut counts = Counts::default();
    counts.count(&schema, 1)?;
    multiples(&counts.multiples)?;
    Ok(schema)
}

#[derive(Default)]
struct Counts {
    values: usize,
    properties: usize,
    pattern_properties: usize,
    references: usize,
    branches: usize,
    multiples: Vec<f64>,
}

impl Counts {
    fn count(&mut self, value: &Value, depth: usize) -> Result<(), ConstraintError> {
        at_most("depth", limits::MAX_DEPTH, depth)?;
        self.values += 1;
        at_most("values", limits::MAX_VALUES, self.values)?;
        match value {
            Value::Array(values) => values.iter().try_for_each(|it| self.count(it, depth + 1)),
            Value::Object(members) => members.iter().try_for_each(|(key, it)| {
                self.count_keyword(key, it)?;
                self.count(it, depth + 1)
            }),
            _ => Ok(()),
        }
    }

    /// What a member takes if its key is a keyword. Names of properties may look
    /// like keywords; such schemas have a little less room.
    fn count_keyword(&mut self, key: &str, value: &Value) -> Result<(), ConstraintError> {
        let pattern = |bytes| at_most("bytes of a pattern", limits::MAX_PATTERN_BYTES, bytes);
        match (key, value) {
            ("properties", Value::Object(members)) => {
                self.properties += members.len();
                at_most("properties", limits::MAX_PROPERTIES, self.properties)
            }
            ("patternProperties", Value::Object(members)) => {
                self.pattern_properties += members.len();
                let limit = limits::MAX_PATTERN_PROPERTIES;
                at_most("patternProperties", limit, self.pattern_properties)?;
                members.keys().try_for_each(|key| pattern(key.len()))
            }
            ("allOf" | "oneOf", Value::Array(values)) => {
                self.branches += values.len();
                at_most("branches of allOf and oneOf", limits::MAX_BRANCHES, self.branches)
            }
            ("$ref", _) => {
                self.references += 1;
                at_most("references", limits::MAX_REFERENCES, self.references)
            }
            ("pattern", Value::String(text)) => pattern(text.len()),
            ("multipleOf", Value::Number(number)) => {
                self.multiples.extend(number.as_f64());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Checks the common multiple of all `multipleOf`, wherever they stand: the library merges
/// those that come together by `allOf`, references or branches.
fn multiples(values: &[f64]) -> Result<(), ConstraintError> {
    let decimals: Vec<(u64, u32)> =
        values.iter().map(|&value| decimal(value)).collect::<Result<_, _>>()?;
    let digits = decimals.iter().map(|decimal| decimal.1).max().unwrap_or(0);
    let mut common = 1u64;
    for (number, own) in decimals {
        // Below 10^4 · 10^6 and 10^4: no product overflows.
        let number = number * 10u64.pow(digits - own);
        common = common / gcd(common, number) * number;
        at_most_of("multipleOf, in common", limits::MAX_MULTIPLE, common)?;
    }
    let remainders = common * values.len() as u64;
    at_most_of("multipleOf, remainders of all", limits::MAX_REMAINDERS, remainders)
}

/// A `multipleOf` as an integer and the digits after the point, found as the library does, in
/// floats. Zero, which it refuses by itself, is 1 here.
fn decimal(value: f64) -> Result<(u64, u32), ConstraintError> {
    let (mut scaled, mut digits) = (value.abs(), 0);
    while scaled.fract() != 0.0 {
        digits += 1;
        at_most("digits of multipleOf", limits::MAX_MULTIPLE_DIGITS as usize, digits as usize)?;
        scaled *= 10.0;
    }
    let number = scaled as u64;
    at_most_of("multipleOf", limits::MAX_MULTIPLE, number)?;
    Ok((number.max(1), digits))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn at_most_of(what: &'static str, expected: u64, got: u64) -> Result<(), ConstraintError> {
    let [expected, got] = [expected, got].map(|it| usize::try_from(it).unwrap_or(usize::MAX));
    at_most(what, expected, got)
}

fn at_most(what: &'static str, expected: usize, got: usize) -> Result<(), ConstraintError> {
    if got > expected {
        return Err(ConstraintError::Size { what, expected, got });
    }
    Ok(())
}
