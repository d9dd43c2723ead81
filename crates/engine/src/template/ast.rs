//! A compiled template: statements and expressions, with all names checked.

/// Where a value goes.
#[derive(Debug)]
pub(super) enum Target {
    Name(String),
    /// Of a namespace.
    Attr(String, String),
    Many(Vec<Target>),
}

#[derive(Debug)]
pub(super) enum Stmt {
    Text(String),
    Emit(Expr),
    For(Box<For>),
    /// The first arm whose condition holds, or else the last body.
    If(Vec<(Expr, Vec<Stmt>)>, Vec<Stmt>),
    Set(Target, Expr),
    /// What the body renders, filtered.
    SetBlock(Target, Vec<Apply>, Vec<Stmt>),
    FilterBlock(Vec<Apply>, Vec<Stmt>),
    With(Vec<(Target, Expr)>, Vec<Stmt>),
    /// By its place in [`Program::macros`].
    Macro(usize),
    /// As if its statements stood here.
    Body(Vec<Stmt>),
    Break,
    Continue,
}

#[derive(Debug)]
pub(super) struct For {
    pub(super) target: Target,
    pub(super) over: Expr,
    /// Only items for which it holds.
    pub(super) only: Option<Expr>,
    pub(super) body: Vec<Stmt>,
    /// Where there are no items.
    pub(super) otherwise: Vec<Stmt>,
}

#[derive(Debug)]
pub(super) struct Macro {
    pub(super) name: String,
    pub(super) parameters: Vec<(String, Option<Expr>)>,
    pub(super) body: Vec<Stmt>,
}

/// A filter with its arguments.
#[derive(Debug)]
pub(super) struct Apply {
    pub(super) name: String,
    pub(super) arguments: Arguments,
    pub(super) line: u32,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) plain: Vec<Expr>,
    pub(super) named: Vec<(String, Expr)>,
}

#[derive(Debug)]
pub(super) struct Expr {
    pub(super) line: u32,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Undefined,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Name(String),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Attr(Box<Expr>, String),
    Item(Box<Expr>, Box<Expr>),
    /// Start, end and step.
    Slice(Box<Expr>, Box<[Option<Expr>; 3]>),
    Filter(Box<Expr>, Box<Apply>),
    /// A test, and whether it is to fail.
    Test(Box<Expr>, String, Arguments, bool),
    /// A function or macro by its name.
    Call(String, Arguments),
    Method(Box<Expr>, String, Arguments),
    Not(Box<Expr>),
    Minus(Box<Expr>),
    Math(&'static str, Box<Expr>, Box<Expr>),
    Concat(Vec<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// `a < b <= c`: every neighbour in order.
    Compare(Box<Expr>, Vec<(&'static str, Expr)>),
    /// Condition, then, else.
    If(Box<[Expr; 3]>),
}

/// A whole template.
#[derive(Debug, Default)]
pub(super) struct Program {
    pub(super) body: Vec<Stmt>,
    pub(super) macros: Vec<Macro>,
}
