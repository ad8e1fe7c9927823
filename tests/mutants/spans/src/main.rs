//! Prints the byte ranges of functions, operators, match arms, and struct expressions of Rust files.
//!
//! `cargo mutants --list` names the token to change. To compile the change and the original into one build, each behind
//! a switch, `tests/mutants/score` also needs the expressions around the token, which this program prints: a line with
//! the name of each file, and below it a line for each place, with its kind and its ranges.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

struct Printer {
    in_const: bool,
}

fn range(node: &impl Spanned) -> Range<usize> {
    node.span().byte_range()
}

fn print(kind: &str, ranges: &[Range<usize>]) {
    let text: Vec<String> = ranges
        .iter()
        .map(|range| format!("{} {}", range.start, range.end))
        .collect();
    println!("{kind} {}", text.join(" "));
}

/// Whether a condition contains `let` outside of parentheses, so that it is no expression of its own.
fn is_chain(expr: &syn::Expr) -> bool {
    match expr {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => is_chain(&binary.left) || is_chain(&binary.right),
        _ => false,
    }
}

impl Printer {
    /// A function: its body, and its `const` if it has one. Its body is no constant.
    fn function(&mut self, sig: &syn::Signature, block: &syn::Block) {
        let keyword = sig.constness.map_or(0..0, |token| range(&token));
        print("fn", &[block.span().byte_range(), keyword]);
    }

    fn constant(&mut self, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.in_const, true);
        visit(self);
        self.in_const = outer;
    }

    fn variable(&mut self, visit: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.in_const, false);
        visit(self);
        self.in_const = outer;
    }
}

impl<'ast> Visit<'ast> for Printer {
    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        self.function(&node.sig, &node.block);
        self.variable(|printer| visit::visit_item_fn(printer, node));
    }

    fn visit_impl_item_fn(&mut self, node: &'ast syn::ImplItemFn) {
        self.function(&node.sig, &node.block);
        self.variable(|printer| visit::visit_impl_item_fn(printer, node));
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.function(&node.sig, block);
        }
        self.variable(|printer| visit::visit_trait_item_fn(printer, node));
    }

    fn visit_item_const(&mut self, node: &'ast syn::ItemConst) {
        self.constant(|printer| visit::visit_item_const(printer, node));
    }

    fn visit_impl_item_const(&mut self, node: &'ast syn::ImplItemConst) {
        self.constant(|printer| visit::visit_impl_item_const(printer, node));
    }

    fn visit_item_static(&mut self, node: &'ast syn::ItemStatic) {
        self.constant(|printer| visit::visit_item_static(printer, node));
    }

    fn visit_type(&mut self, node: &'ast syn::Type) {
        self.constant(|printer| visit::visit_type(printer, node));
    }

    fn visit_expr_repeat(&mut self, node: &'ast syn::ExprRepeat) {
        self.visit_expr(&node.expr);
        self.constant(|printer| printer.visit_expr(&node.len));
    }

    fn visit_expr_binary(&mut self, node: &'ast syn::ExprBinary) {
        let kind = match () {
            () if is_chain(&node.left) || is_chain(&node.right) => "chain",
            () if self.in_const => "const",
            () => "binary",
        };
        print(
            kind,
            &[
                range(&node.op),
                range(node),
                range(&node.left),
                range(&node.right),
            ],
        );
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast syn::ExprUnary) {
        let kind = if self.in_const { "const" } else { "unary" };
        print(kind, &[range(&node.op), range(node), range(&node.expr)]);
        visit::visit_expr_unary(self, node);
    }

    fn visit_expr_match(&mut self, node: &'ast syn::ExprMatch) {
        // Its arms: removing one of them may make the patterns incomplete.
        let patterns: Vec<_> = node.arms.iter().map(|arm| range(&arm.pat)).collect();
        print("match", &patterns);
        visit::visit_expr_match(self, node);
    }

    fn visit_arm(&mut self, node: &'ast syn::Arm) {
        let pattern = range(&node.pat);
        match &node.guard {
            Some((_, guard)) => print("guarded", &[range(node), pattern, range(&**guard)]),
            None => print("arm", &[range(node), pattern]),
        }
        visit::visit_arm(self, node);
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        if node.rest.is_some() {
            let mut ranges = vec![range(node)];
            for pair in node.fields.pairs() {
                let end = pair
                    .punct()
                    .map_or(range(*pair.value()).end, |comma| range(comma).end);
                ranges.push(range(*pair.value()).start..end);
            }
            print("struct", &ranges);
        }
        visit::visit_expr_struct(self, node);
    }
}

fn main() {
    for path in std::env::args().skip(1) {
        let parsed = std::fs::read_to_string(&path)
            .map_err(|error| error.to_string())
            .and_then(|text| syn::parse_file(&text).map_err(|error| error.to_string()));
        match parsed {
            Ok(file) => {
                println!("file {path}");
                Printer { in_const: false }.visit_file(&file);
            }
            Err(error) => {
                eprintln!("spans: {path}: {error}");
                std::process::exit(1);
            }
        }
    }
}
