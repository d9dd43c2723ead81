//! From tokens to a [`Program`]: Jinja 2's statements, as far as chat templates
//! use them. Names of filters, tests, functions and methods are checked here, so
//! that what this renderer lacks is said when a model is loaded.
//!
//! Deliberately absent: anything that names another template (`include`,
//! `import`, `from`, `extends`, `block`), `call`, `do` and `autoescape`.

mod expression;

use std::collections::BTreeSet;

use super::ast::{Apply, Expr, For, Macro, Program, Stmt, Target};
use super::fault::Broken;
use super::lex::{Placed, Token, lex};

/// How deep statements and expressions may lie in each other.
const MAX_NESTING: usize = 60;
/// The longest chain of operators or of accesses.
const MAX_CHAIN: usize = 64;
/// Statements that Jinja knows and this renderer doesn't.
const ABSENT: [&str; 9] =
    ["include", "import", "from", "extends", "block", "call", "do", "autoescape", "trans"];
/// Functions that every template has.
pub(super) const FUNCTIONS: [&str; 4] = ["range", "namespace", "dict", "raise_exception"];

/// Compiles a template.
pub(super) fn parse(source: &str) -> Result<Program, Broken> {
    let tokens = lex(source)?;
    let mut parser = Parser {
        tokens,
        at: 0,
        nesting: 0,
        loops: 0,
        program: Program::default(),
        called: Vec::new(),
        tested: BTreeSet::new(),
    };
    let (body, _) = parser.body(&[])?;
    parser.program.body = body;
    parser.functions()?;
    Ok(parser.program)
}

struct Parser {
    tokens: Vec<Placed>,
    at: usize,
    nesting: usize,
    /// How many loops the place lies in.
    loops: usize,
    program: Program,
    /// Functions called by name, and where.
    called: Vec<(String, u32)>,
    /// Names that some condition asks to be defined.
    tested: BTreeSet<String>,
}

impl Parser {
    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |placed| placed.line)
    }

    fn broken<T>(&self, reason: impl Into<String>) -> Result<T, Broken> {
        Err(Broken { line: self.line(), reason: reason.into() })
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Some(Token::Op(found)) if *found == op)
    }

    fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Some(Token::Name(found)) if found == name)
    }

    /// Steps over an operator if it is there.
    fn take_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    fn take_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    fn unexpected<T>(&self, expected: &str) -> Result<T, Broken> {
        let got = match self.peek() {
            None => "the end of the template".to_owned(),
            Some(Token::Text(_)) => "text".to_owned(),
            Some(Token::ExprStart) => "{{".to_owned(),
            Some(Token::ExprEnd) => "}}".to_owned(),
            Some(Token::BlockStart) => "{%".to_owned(),
            Some(Token::BlockEnd) => "%}".to_owned(),
            Some(Token::Op(op)) => format!("{op:?}"),
            Some(Token::Name(name)) => format!("{:?}", name.chars().take(40).collect::<String>()),
            Some(Token::Str(_)) => "a string".to_owned(),
            Some(Token::Int(_) | Token::Float(_)) => "a number".to_owned(),
        };
        self.broken(format!("expected {expected}, got {got}"))
    }

    fn op(&mut self, op: &'static str) -> Result<(), Broken> {
        if self.take_op(op) { Ok(()) } else { self.unexpected(&format!("{op:?}")) }
    }

    fn word(&mut self, name: &str) -> Result<(), Broken> {
        if self.take_name(name) { Ok(()) } else { self.unexpected(name) }
    }

    fn name(&mut self) -> Result<String, Broken> {
        match self.peek() {
            Some(Token::Name(name)) => {
                let name = name.clone();
                self.at += 1;
                Ok(name)
            }
            _ => self.unexpected("a name"),
        }
    }

    fn block_end(&mut self) -> Result<(), Broken> {
        match self.peek() {
            Some(Token::BlockEnd) => {
                self.at += 1;
                Ok(())
            }
            _ => self.unexpected("%}"),
        }
    }

    /// One level deeper, for as long as `inner` runs.
    fn nested<T>(
        &mut self,
        inner: impl FnOnce(&mut Self) -> Result<T, Broken>,
    ) -> Result<T, Broken> {
        if self.nesting == MAX_NESTING {
            return self.broken(format!("nested deeper than {MAX_NESTING} levels"));
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    /// Statements up to a block that begins with one of `ends`, which is stepped
    /// over up to its name.
    fn body(&mut self, ends: &[&str]) -> Result<(Vec<Stmt>, String), Broken> {
        self.nested(|parser| {
            let mut body = Vec::new();
            loop {
                match parser.peek() {
                    None if ends.is_empty() => return Ok((body, String::new())),
                    None => return parser.unexpected(&ends.join(" or ")),
                    Some(Token::Text(text)) => {
                        body.push(Stmt::Text(text.clone()));
                        parser.at += 1;
                    }
                    Some(Token::ExprStart) => {
                        parser.at += 1;
                        body.push(Stmt::Emit(parser.tuple()?));
                        match parser.peek() {
                            Some(Token::ExprEnd) => parser.at += 1,
                            _ => return parser.unexpected("}}"),
                        }
                    }
                    Some(Token::BlockStart) => {
                        parser.at += 1;
                        let name = parser.name()?;
                        if ends.contains(&name.as_str()) {
                            return Ok((body, name));
                        }
                        body.push(parser.statement(&name)?);
                    }
                    Some(_) => return parser.unexpected("text or a tag"),
                }
            }
        })
    }

    /// A body and the end of its last tag.
    fn whole_body(&mut self, end: &str) -> Result<Vec<Stmt>, Broken> {
        self.block_end()?;
        let (body, _) = self.body(&[end])?;
        self.block_end()?;
        Ok(body)
    }

    fn statement(&mut self, name: &str) -> Result<Stmt, Broken> {
        match name {
            "if" => self.condition(),
            "for" => self.for_loop(),
            "set" => self.set(),
            "macro" => self.macro_(),
            "with" => self.with(),
            "filter" => {
                let filters = self.filters_after_name()?;
                Ok(Stmt::FilterBlock(filters, self.whole_body("endfilter")?))
            }
            // Marks what a model is trained to say; renders as if it weren't there.
            "generation" => self.whole_body("endgeneration").map(Stmt::Body),
            "break" | "continue" => {
                if self.loops == 0 {
                    return self.broken(format!("{name} outside of a loop"));
                }
                self.block_end()?;
                Ok(if name == "break" { Stmt::Break } else { Stmt::Continue })
            }
            _ if ABSENT.contains(&name) => {
                self.broken(format!("the statement {name:?} is not supported in a chat template"))
            }
            _ => {
                let name: String = name.chars().take(40).collect();
                self.broken(format!("unknown statement {name:?}"))
            }
        }
    }

    fn condition(&mut self) -> Result<Stmt, Broken> {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let condition = self.tuple()?;
            self.block_end()?;
            let (body, end) = self.body(&["elif", "else", "endif"])?;
            arms.push((condition, body));
            match end.as_str() {
                "elif" => continue,
                "else" => otherwise = self.whole_body("endif")?,
                _ => self.block_end()?,
            }
            return Ok(Stmt::If(arms, otherwise));
        }
    }

    fn for_loop(&mut self) -> Result<Stmt, Broken> {
        let target = self.target(false)?;
        self.word("in")?;
        // A bare `if` belongs to the loop, not to the expression.
        let over = self.without_condition()?;
        let only = if self.take_name("if") { Some(self.expression()?) } else { None };
        if self.is_name("recursive") {
            return self.broken("recursive loops are not supported in a chat template");
        }
        self.block_end()?;
        self.loops += 1;
        let (body, end) = self.body(&["else", "endfor"])?;
        self.loops -= 1;
        let otherwise = match end.as_str() {
            "else" => self.whole_body("endfor")?,
            _ => {
                self.block_end()?;
                Vec::new()
            }
        };
        Ok(Stmt::For(Box::new(For { target, over, only, body, otherwise })))
    }

    fn set(&mut self) -> Result<Stmt, Broken> {
        let target = self.target(true)?;
        if self.take_op("=") {
            let value = self.tuple()?;
            self.block_end()?;
            return Ok(Stmt::Set(target, value));
        }
        let filters = self.filters()?;
        Ok(Stmt::SetBlock(target, filters, self.whole_body("endset")?))
    }

    fn with(&mut self) -> Result<Stmt, Broken> {
        let mut values = Vec::new();
        while !matches!(self.peek(), Some(Token::BlockEnd)) {
            let target = self.target(false)?;
            self.op("=")?;
            values.push((target, self.expression()?));
            if !self.take_op(",") {
                break;
            }
        }
        Ok(Stmt::With(values, self.whole_body("endwith")?))
    }

    fn macro_(&mut self) -> Result<Stmt, Broken> {
        let name = self.name()?;
        self.op("(")?;
        let mut parameters: Vec<(String, Option<Expr>)> = Vec::new();
        while !self.take_op(")") {
            let parameter = self.name()?;
            let default = if self.take_op("=") { Some(self.expression()?) } else { None };
            if default.is_none() && parameters.last().is_some_and(|(_, last)| last.is_some()) {
                return self.broken("a parameter without a default after one with");
            }
            parameters.push((parameter, default));
            if !self.is_op(")") {
                self.op(",")?;
            }
        }
        // A loop around the macro is not one around its body.
        let loops = std::mem::take(&mut self.loops);
        let body = self.whole_body("endmacro")?;
        self.loops = loops;
        self.program.macros.push(Macro { name, parameters, body });
        Ok(Stmt::Macro(self.program.macros.len() - 1))
    }

    /// Where values go; `attributes` allows those of namespaces.
    fn target(&mut self, attributes: bool) -> Result<Target, Broken> {
        let mut targets = Vec::new();
        loop {
            let one = if self.take_op("(") {
                let inner = self.nested(|parser| parser.target(false))?;
                self.op(")")?;
                inner
            } else {
                let name = self.name()?;
                match attributes && self.take_op(".") {
                    true => Target::Attr(name, self.name()?),
                    false => Target::Name(name),
                }
            };
            targets.push(one);
            let more = self.take_op(",");
            if !more || self.is_name("in") || self.is_op("=") || self.is_op(")") {
                let many = more || targets.len() > 1;
                return Ok(match targets.pop() {
                    Some(one) if !many => one,
                    one => Target::Many(targets.into_iter().chain(one).collect()),
                });
            }
            if !attributes && self.is_op("=") {
                return self.unexpected("a name");
            }
        }
    }

    /// Every function that is called exists, or the template asks whether it does.
    fn functions(&self) -> Result<(), Broken> {
        for (name, line) in &self.called {
            let known = FUNCTIONS.contains(&name.as_str())
                || self.program.macros.iter().any(|known| known.name == *name)
                || self.tested.contains(name);
            if !known {
                let name: String = name.chars().take(40).collect();
                let why = match name.as_str() {
                    "strftime_now" => ": the same messages give the same tokens on any day",
                    _ => "",
                };
                let reason = format!("the function {name:?} is not supported{why}");
                return Err(Broken { line: *line, reason });
            }
        }
        Ok(())
    }

    /// `name(...) | ...` after the word `filter`.
    fn filters_after_name(&mut self) -> Result<Vec<Apply>, Broken> {
        let mut filters = vec![self.filter()?];
        filters.extend(self.filters()?);
        Ok(filters)
    }

    /// `| name(...) | ...`
    fn filters(&mut self) -> Result<Vec<Apply>, Broken> {
        let mut filters = Vec::new();
        while self.take_op("|") {
            filters.push(self.filter()?);
        }
        Ok(filters)
    }

    fn filter(&mut self) -> Result<Apply, Broken> {
        let line = self.line();
        let name = self.name()?;
        if !super::filters::NAMES.contains(&name.as_str()) {
            self.at -= 1;
            let name: String = name.chars().take(40).collect();
            return self.broken(format!("the filter {name:?} is not supported"));
        }
        let arguments =
            if self.is_op("(") { self.arguments()? } else { super::ast::Arguments::default() };
        Ok(Apply { name, arguments, line })
    }
}
