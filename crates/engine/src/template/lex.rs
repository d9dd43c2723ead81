//! A template cut into text and tokens, as Jinja 2 cuts it with `trim_blocks` and
//! `lstrip_blocks`: the newline after a block or comment belongs to it, and so do
//! the blanks before one that begins its line. A single newline at the end of the
//! template goes; `-` takes all white space on its side, `+` keeps what would go.
//!
//! Deliberately absent: line statements, and other delimiters.

use super::fault::Broken;

/// What a template is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Outside of all delimiters.
    Text(String),
    /// `{{`
    ExprStart,
    /// `}}`
    ExprEnd,
    /// `{%`
    BlockStart,
    /// `%}`
    BlockEnd,
    Name(String),
    Str(String),
    Int(i64),
    Float(f64),
    /// An operator or a bracket.
    Op(&'static str),
}

/// A token and its line, counted from 1.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) line: u32,
}

/// Longer ones first.
const OPS: [&str; 25] = [
    "**", "//", "==", "!=", "<=", ">=", "+", "-", "*", "/", "%", "~", "<", ">", "=", "(", ")", "[",
    "]", "{", "}", ",", ":", ".", "|",
];

/// Cuts a template into tokens.
pub(super) fn lex(source: &str) -> Result<Vec<Placed>, Broken> {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = source.strip_suffix('\n').unwrap_or(&source);
    let mut lexer = Lexer { source, at: 0, line: 1, line_starts: true, tokens: Vec::new() };
    while lexer.at < source.len() {
        lexer.next()?;
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: u32,
    /// Whether `at` begins a line.
    line_starts: bool,
    tokens: Vec<Placed>,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.source[self.at..]
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|&byte| byte == b'\n').count() as u32;
        if bytes > 0 {
            self.line_starts = passed.ends_with('\n');
        }
        self.at += bytes;
    }

    fn push(&mut self, token: Token) {
        self.tokens.push(Placed { token, line: self.line });
    }

    fn broken(&self, reason: impl Into<String>) -> Broken {
        Broken { line: self.line, reason: reason.into() }
    }

    /// The text up to the next delimiter, and what that opens.
    fn next(&mut self) -> Result<(), Broken> {
        let rest = self.rest();
        let open = ["{{", "{%", "{#"].iter().filter_map(|open| rest.find(open)).min();
        let Some(open) = open else {
            self.push(Token::Text(rest.to_owned()));
            self.advance(rest.len());
            return Ok(());
        };
        let tag = &rest[open..];
        let sign = tag.as_bytes().get(2).copied();
        let is_expr = tag.starts_with("{{");
        self.text(&rest[..open], sign, is_expr);
        self.advance(open);
        let signed = usize::from(matches!(sign, Some(b'-' | b'+')));
        if tag.starts_with("{#") {
            let Some(end) = tag.find("#}") else {
                return Err(self.broken("a comment without an end"));
            };
            let minus = tag[..end].ends_with('-');
            self.advance(end);
            self.close("#}", minus, tag[..end].ends_with('+'));
            return Ok(());
        }
        if !is_expr && let Some(body) = raw(&tag[2 + signed..]) {
            return self.raw(2 + signed + body);
        }
        self.advance(2 + signed);
        self.push(if is_expr { Token::ExprStart } else { Token::BlockStart });
        self.inside(if is_expr { "}}" } else { "%}" })
    }

    /// Text before a tag, less what the tag takes of it.
    fn text(&mut self, text: &str, sign: Option<u8>, is_expr: bool) {
        let kept = match sign {
            Some(b'-') => text.trim_end(),
            Some(b'+') => text,
            _ if is_expr => text,
            _ => {
                let line = text.rfind('\n').map_or(0, |at| at + 1);
                let begins = line > 0 || self.line_starts;
                let blank = text[line..].bytes().all(|byte| matches!(byte, b' ' | b'\t'));
                if begins && blank { &text[..line] } else { text }
            }
        };
        if !kept.is_empty() {
            self.push(Token::Text(kept.to_owned()));
        }
    }

    /// The end of a tag, and what it takes of the text behind it.
    fn close(&mut self, end: &str, minus: bool, plus: bool) {
        self.advance(end.len());
        let rest = self.rest();
        if minus {
            self.advance(rest.len() - rest.trim_start().len());
        } else if end != "}}" && !plus && rest.starts_with('\n') {
            self.advance(1);
        }
    }

    /// `{% raw %}`: `body` is where its text begins.
    fn raw(&mut self, body: usize) -> Result<(), Broken> {
        let tag = self.rest();
        let minus = tag[..body].ends_with("-%}");
        self.advance(body);
        if minus {
            let rest = self.rest();
            self.advance(rest.len() - rest.trim_start().len());
        }
        let rest = self.rest();
        for (open, _) in rest.match_indices("{%") {
            let inner = &rest[open + 2..];
            let sign = inner.as_bytes().first().copied();
            let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start();
            let Some(end) = inner.strip_prefix("endraw").map(str::trim_start) else { continue };
            let (minus, plus) = (end.starts_with('-'), end.starts_with('+'));
            let end = end.strip_prefix(['-', '+']).unwrap_or(end);
            if end.starts_with("%}") {
                self.text(&rest[..open], sign, false);
                self.advance(rest.len() - end.len());
                self.close("%}", minus, plus);
                return Ok(());
            }
        }
        Err(self.broken("a raw block without an end"))
    }

    /// The tokens of a tag, up to its end.
    fn inside(&mut self, end: &'static str) -> Result<(), Broken> {
        let mut brackets = Vec::new();
        loop {
            let rest = self.rest();
            self.advance(rest.len() - rest.trim_start().len());
            let rest = self.rest();
            let Some(first) = rest.chars().next() else {
                return Err(self.broken(format!("a tag without its {end}")));
            };
            let sign = usize::from(matches!(first, '-' | '+'));
            if brackets.is_empty() && rest[sign..].starts_with(end) {
                let line = self.line;
                self.advance(sign);
                self.close(end, first == '-', first == '+');
                let token = if end == "}}" { Token::ExprEnd } else { Token::BlockEnd };
                self.tokens.push(Placed { token, line });
                return Ok(());
            }
            if first.is_alphabetic() || first == '_' {
                let len = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
                let name = &rest[..len.unwrap_or(rest.len())];
                self.push(Token::Name(name.to_owned()));
                self.advance(name.len());
            } else if first.is_ascii_digit() {
                self.number()?;
            } else if matches!(first, '\'' | '"') {
                self.string(first)?;
            } else {
                self.op(&mut brackets)?;
            }
        }
    }

    fn op(&mut self, brackets: &mut Vec<&'static str>) -> Result<(), Broken> {
        let rest = self.rest();
        let Some(op) = OPS.into_iter().find(|op| rest.starts_with(op)) else {
            let got = rest.chars().next().unwrap_or(' ');
            return Err(self.broken(format!("unexpected {got:?}")));
        };
        match op {
            "(" => brackets.push(")"),
            "[" => brackets.push("]"),
            "{" => brackets.push("}"),
            ")" | "]" | "}" if brackets.pop() != Some(op) => {
                return Err(self.broken(format!("unexpected {op:?}")));
            }
            _ => {}
        }
        self.push(Token::Op(op));
        self.advance(op.len());
        Ok(())
    }

    fn number(&mut self) -> Result<(), Broken> {
        let rest = self.rest();
        let digits =
            |text: &str| text.bytes().take_while(|&b| b.is_ascii_digit() || b == b'_').count();
        let mut len = digits(rest);
        let mut float = false;
        let after_dot = rest[len..].strip_prefix('.').map_or(0, digits);
        if after_dot > 0 {
            (len, float) = (len + 1 + after_dot, true);
        }
        if let Some(power) = rest[len..].strip_prefix(['e', 'E']) {
            let sign = usize::from(power.starts_with(['+', '-']));
            let exponent = digits(&power[sign..]);
            if exponent > 0 {
                (len, float) = (len + 1 + sign + exponent, true);
            }
        }
        let written = rest[..len].replace('_', "");
        let token = match float {
            true => written.parse().ok().map(Token::Float),
            false => written.parse().ok().map(Token::Int),
        };
        let token = token.ok_or_else(|| self.broken("a number of more than 64 bits"))?;
        self.push(token);
        self.advance(len);
        Ok(())
    }

    fn string(&mut self, quote: char) -> Result<(), Broken> {
        let rest = self.rest();
        let mut out = String::new();
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, char)) = chars.next() {
            if char == quote {
                self.push(Token::Str(out));
                self.advance(at + 1);
                return Ok(());
            }
            if char != '\\' {
                out.push(char);
                continue;
            }
            let Some((_, escaped)) = chars.next() else { break };
            let digits = match escaped {
                'x' => 2,
                'u' => 4,
                'U' => 8,
                _ => 0,
            };
            if digits > 0 {
                let code: String = chars.by_ref().take(digits).map(|(_, c)| c).collect();
                let decoded = u32::from_str_radix(&code, 16).ok().filter(|_| code.len() == digits);
                match decoded.and_then(char::from_u32) {
                    Some(char) => out.push(char),
                    None => return Err(self.broken(format!("a bad escape \\{escaped}{code}"))),
                }
            } else {
                simple_escape(escaped, &mut out);
            }
        }
        Err(self.broken("a string without an end"))
    }
}

fn simple_escape(escaped: char, out: &mut String) {
    match escaped {
        'n' => out.push('\n'),
        't' => out.push('\t'),
        'r' => out.push('\r'),
        'b' => out.push('\u{8}'),
        'f' => out.push('\u{c}'),
        'v' => out.push('\u{b}'),
        'a' => out.push('\u{7}'),
        '0' => out.push('\0'),
        '\n' => {}
        '\\' | '\'' | '"' => out.push(escaped),
        _ => out.extend(['\\', escaped]),
    }
}

/// Where the text of a raw block begins, given what follows `{%` and its sign.
fn raw(tag: &str) -> Option<usize> {
    let rest = tag.trim_start().strip_prefix("raw")?.trim_start();
    let rest = rest.strip_prefix("-%}").or_else(|| rest.strip_prefix("%}"))?;
    Some(tag.len() - rest.len())
}
