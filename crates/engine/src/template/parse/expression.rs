//! Expressions, with Jinja's precedence: `if`, `or`, `and`, `not`, comparisons,
//! `+ -`, `~`, `* / // %`, sign, `**`, then accesses, filters and tests.

use super::super::ast::{Arguments, Expr, Kind};
use super::super::fault::Broken;
use super::super::lex::Token;
use super::super::{methods, predicates};
use super::{MAX_CHAIN, Parser};

type Parsed = Result<Expr, Broken>;

impl Parser {
    /// An expression, or several with commas as a list.
    pub(super) fn tuple(&mut self) -> Parsed {
        let line = self.line();
        let first = self.expression()?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take_op(",") {
            if matches!(self.peek(), None | Some(Token::BlockEnd | Token::ExprEnd))
                || self.is_op(")")
            {
                break;
            }
            items.push(self.expression()?);
        }
        Ok(Expr { line, kind: Kind::List(items) })
    }

    pub(super) fn expression(&mut self) -> Parsed {
        self.nested(|parser| {
            let mut value = parser.or()?;
            let mut chain = 0;
            while parser.is_name("if") {
                let line = parser.line();
                parser.at += 1;
                parser.link(&mut chain)?;
                let condition = parser.or()?;
                let other = if parser.take_name("else") {
                    parser.expression()?
                } else {
                    Expr { line, kind: Kind::Undefined }
                };
                value = Expr { line, kind: Kind::If(Box::new([condition, value, other])) };
            }
            Ok(value)
        })
    }

    /// As what a loop runs over: an `if` after it is not its own.
    pub(super) fn without_condition(&mut self) -> Parsed {
        let line = self.line();
        let first = self.nested(Self::or)?;
        if !self.is_op(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.take_op(",") {
            items.push(self.nested(Self::or)?);
        }
        Ok(Expr { line, kind: Kind::List(items) })
    }

    /// One more link of a chain that nests to the left.
    fn link(&self, chain: &mut usize) -> Result<(), Broken> {
        *chain += 1;
        if *chain > MAX_CHAIN {
            return self.broken(format!("a chain of more than {MAX_CHAIN} operations"));
        }
        Ok(())
    }

    fn or(&mut self) -> Parsed {
        let line = self.line();
        let mut items = vec![self.and()?];
        while self.take_name("or") {
            items.push(self.and()?);
        }
        Ok(one_or(line, items, Kind::Or))
    }

    fn and(&mut self) -> Parsed {
        let line = self.line();
        let mut items = vec![self.not()?];
        while self.take_name("and") {
            items.push(self.not()?);
        }
        Ok(one_or(line, items, Kind::And))
    }

    fn not(&mut self) -> Parsed {
        let line = self.line();
        if !self.take_name("not") {
            return self.comparison();
        }
        let inner = self.nested(Self::not)?;
        Ok(Expr { line, kind: Kind::Not(Box::new(inner)) })
    }

    fn comparison(&mut self) -> Parsed {
        let line = self.line();
        let first = self.sum()?;
        let mut rest = Vec::new();
        while let Some(op) = self.comparator() {
            rest.push((op, self.sum()?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expr { line, kind: Kind::Compare(Box::new(first), rest) })
    }

    fn comparator(&mut self) -> Option<&'static str> {
        for op in ["==", "!=", "<=", ">=", "<", ">"] {
            if self.take_op(op) {
                return Some(op);
            }
        }
        if self.take_name("in") {
            return Some("in");
        }
        let next = self.tokens.get(self.at + 1).map(|placed| &placed.token);
        if self.is_name("not") && matches!(next, Some(Token::Name(name)) if name == "in") {
            self.at += 2;
            return Some("not in");
        }
        None
    }

    fn sum(&mut self) -> Parsed {
        self.left(&["+", "-"], Self::concat)
    }

    fn concat(&mut self) -> Parsed {
        let line = self.line();
        let mut items = vec![self.product()?];
        while self.take_op("~") {
            items.push(self.product()?);
        }
        Ok(one_or(line, items, Kind::Concat))
    }

    fn product(&mut self) -> Parsed {
        self.left(&["*", "//", "/", "%"], Self::power)
    }

    fn power(&mut self) -> Parsed {
        self.left(&["**"], |parser| parser.unary(true))
    }

    fn left(
        &mut self,
        ops: &[&'static str],
        mut operand: impl FnMut(&mut Self) -> Parsed,
    ) -> Parsed {
        let mut value = operand(self)?;
        let mut chain = 0;
        loop {
            let line = self.line();
            let Some(op) = ops.iter().find(|op| self.is_op(op)) else { return Ok(value) };
            self.at += 1;
            self.link(&mut chain)?;
            let right = operand(self)?;
            value = Expr { line, kind: Kind::Math(op, Box::new(value), Box::new(right)) };
        }
    }

    fn unary(&mut self, filtered: bool) -> Parsed {
        let line = self.line();
        let value = if self.take_op("-") {
            let inner = self.nested(|parser| parser.unary(false))?;
            Expr { line, kind: Kind::Minus(Box::new(inner)) }
        } else if self.take_op("+") {
            self.nested(|parser| parser.unary(false))?
        } else {
            self.primary()?
        };
        let mut chain = 0;
        let value = self.postfix(value, &mut chain)?;
        if filtered { self.filtered(value, &mut chain) } else { Ok(value) }
    }

    /// Filters and tests, and accesses behind them.
    fn filtered(&mut self, mut value: Expr, chain: &mut usize) -> Parsed {
        loop {
            let line = self.line();
            if self.take_op("|") {
                self.link(chain)?;
                let filter = self.filter()?;
                let kind = Kind::Filter(Box::new(value), Box::new(filter));
                value = self.postfix(Expr { line, kind }, chain)?;
            } else if self.take_name("is") {
                self.link(chain)?;
                value = self.test(value, line)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn test(&mut self, value: Expr, line: u32) -> Parsed {
        let negated = self.take_name("not");
        let name = self.name()?;
        if !predicates::NAMES.contains(&name.as_str()) {
            self.at -= 1;
            let name: String = name.chars().take(40).collect();
            return self.broken(format!("the test {name:?} is not supported"));
        }
        if let (Kind::Name(asked), "defined" | "undefined") = (&value.kind, name.as_str()) {
            self.tested.insert(asked.clone());
        }
        let mut arguments = Arguments::default();
        let word = |name: &String| {
            !matches!(name.as_str(), "else" | "or" | "and" | "is" | "if" | "not" | "in")
        };
        let takes = match self.peek() {
            Some(Token::Op("(")) => {
                arguments = self.arguments()?;
                false
            }
            Some(Token::Op("[" | "{") | Token::Str(_) | Token::Int(_) | Token::Float(_)) => true,
            Some(Token::Name(name)) => word(name) && predicates::takes_argument(&self.test_name()),
            _ => false,
        };
        if takes {
            let argument = self.primary()?;
            arguments.plain.push(self.postfix(argument, &mut 0)?);
        }
        Ok(Expr { line, kind: Kind::Test(Box::new(value), name, arguments, negated) })
    }

    /// The name just stepped over.
    fn test_name(&self) -> String {
        match self.at.checked_sub(1).and_then(|at| self.tokens.get(at)).map(|p| &p.token) {
            Some(Token::Name(name)) => name.clone(),
            _ => String::new(),
        }
    }

    fn postfix(&mut self, mut value: Expr, chain: &mut usize) -> Parsed {
        loop {
            let line = self.line();
            if self.take_op(".") {
                self.link(chain)?;
                if let Some(&Token::Int(at)) = self.peek() {
                    self.at += 1;
                    let at = Box::new(Expr { line, kind: Kind::Int(at) });
                    value = Expr { line, kind: Kind::Item(Box::new(value), at) };
                    continue;
                }
                let name = self.name()?;
                value = if self.is_op("(") {
                    self.method(value, name, line)?
                } else {
                    Expr { line, kind: Kind::Attr(Box::new(value), name) }
                };
            } else if self.take_op("[") {
                self.link(chain)?;
                value = self.subscript(value, line)?;
            } else if self.is_op("(") {
                self.link(chain)?;
                let Kind::Name(name) = value.kind else {
                    return self.broken("only functions and methods can be called");
                };
                self.called.push((name.clone(), line));
                value = Expr { line, kind: Kind::Call(name, self.arguments()?) };
            } else {
                return Ok(value);
            }
        }
    }

    fn method(&mut self, value: Expr, name: String, line: u32) -> Parsed {
        if !methods::NAMES.contains(&name.as_str()) {
            self.at -= 1;
            let name: String = name.chars().take(40).collect();
            return self.broken(format!("the method {name:?} is not supported"));
        }
        let arguments = self.arguments()?;
        Ok(Expr { line, kind: Kind::Method(Box::new(value), name, arguments) })
    }

    /// `[index]` or `[start:end:step]`, after the bracket.
    fn subscript(&mut self, value: Expr, line: u32) -> Parsed {
        let mut parts: [Option<Expr>; 3] = [None, None, None];
        let mut colons = 0;
        loop {
            if self.take_op("]") {
                break;
            }
            if self.take_op(":") {
                colons += 1;
                if colons > 2 {
                    return self.unexpected("]");
                }
            } else if parts[colons].is_none() {
                parts[colons] = Some(self.expression()?);
            } else {
                return self.unexpected("]");
            }
        }
        let kind = match (colons, parts) {
            (0, [Some(index), ..]) => Kind::Item(Box::new(value), Box::new(index)),
            (0, _) => return self.broken("an empty subscript"),
            (_, parts) => Kind::Slice(Box::new(value), Box::new(parts)),
        };
        Ok(Expr { line, kind })
    }

    pub(super) fn arguments(&mut self) -> Result<Arguments, Broken> {
        self.op("(")?;
        let mut arguments = Arguments::default();
        while !self.take_op(")") {
            if self.is_op("*") || self.is_op("**") {
                return self.broken("unpacked arguments are not supported");
            }
            let next = self.tokens.get(self.at + 1).map(|placed| &placed.token);
            if matches!((self.peek(), next), (Some(Token::Name(_)), Some(Token::Op("=")))) {
                let name = self.name()?;
                self.op("=")?;
                arguments.named.push((name, self.expression()?));
            } else if arguments.named.is_empty() {
                arguments.plain.push(self.expression()?);
            } else {
                return self.broken("a plain argument after a named one");
            }
            if !self.is_op(")") {
                self.op(",")?;
            }
        }
        Ok(arguments)
    }

    fn primary(&mut self) -> Parsed {
        let line = self.line();
        let Some(token) = self.peek().cloned() else { return self.unexpected("an expression") };
        let kind = match token {
            Token::Name(name) => {
                self.at += 1;
                match name.as_str() {
                    "true" | "True" => Kind::Bool(true),
                    "false" | "False" => Kind::Bool(false),
                    "none" | "None" => Kind::None,
                    "if" | "else" | "and" | "or" | "in" | "is" | "not" => {
                        self.at -= 1;
                        return self.unexpected("an expression");
                    }
                    _ => Kind::Name(name),
                }
            }
            Token::Str(mut text) => {
                self.at += 1;
                while let Some(Token::Str(more)) = self.peek() {
                    text.push_str(more);
                    self.at += 1;
                }
                Kind::Str(text)
            }
            Token::Int(number) => {
                self.at += 1;
                Kind::Int(number)
            }
            Token::Float(number) => {
                self.at += 1;
                Kind::Float(number)
            }
            Token::Op("(") => return self.group(),
            Token::Op("[") => Kind::List(self.items("[", "]")?),
            Token::Op("{") => self.map()?,
            _ => return self.unexpected("an expression"),
        };
        Ok(Expr { line, kind })
    }

    /// What stands in parentheses.
    fn group(&mut self) -> Parsed {
        let line = self.line();
        self.op("(")?;
        if self.take_op(")") {
            return Ok(Expr { line, kind: Kind::List(Vec::new()) });
        }
        let inner = self.tuple()?;
        self.op(")")?;
        Ok(inner)
    }

    fn items(&mut self, open: &'static str, close: &'static str) -> Result<Vec<Expr>, Broken> {
        self.op(open)?;
        let mut items = Vec::new();
        while !self.take_op(close) {
            items.push(self.expression()?);
            if !self.is_op(close) {
                self.op(",")?;
            }
        }
        Ok(items)
    }

    fn map(&mut self) -> Result<Kind, Broken> {
        self.op("{")?;
        let mut entries = Vec::new();
        while !self.take_op("}") {
            let key = self.expression()?;
            self.op(":")?;
            entries.push((key, self.expression()?));
            if !self.is_op("}") {
                self.op(",")?;
            }
        }
        Ok(Kind::Map(entries))
    }
}

fn one_or(line: u32, mut items: Vec<Expr>, many: impl FnOnce(Vec<Expr>) -> Kind) -> Expr {
    match items.pop() {
        Some(only) if items.is_empty() => only,
        last => {
            items.extend(last);
            Expr { line, kind: many(items) }
        }
    }
}
