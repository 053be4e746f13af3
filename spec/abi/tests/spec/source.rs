// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! Reads `layout.rs` as text: the names, types, order and doc comments that Rust cannot list.
//!
//! Invariant: each line after the first section heading is understood or the reader panics, so
//! nothing that is added to `layout.rs` can escape the other tests.

const LAYOUT: &str = include_str!("../../src/layout.rs");

/// A constant, with the module it stands in ("root" for the file itself).
pub(crate) struct Constant {
    pub(crate) module: String,
    pub(crate) name: String,
    pub(crate) expression: String,
    pub(crate) doc: String,
}

/// One field of a `layout!` structure.
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) ty: String,
    pub(crate) doc: String,
}

/// A `layout!` structure.
pub(crate) struct Structure {
    pub(crate) name: String,
    pub(crate) doc: String,
    pub(crate) fields: Vec<Field>,
}

/// What the file holds, in its order.
pub(crate) enum Item {
    Section(String),
    Module { doc: String },
    Constant(Constant),
    Structure(Structure),
}

impl Field {
    /// The type's name in the specification: `le16`, `u8`, `u8[16]`.
    pub(crate) fn spec_type(&self) -> String {
        match self.ty.as_str() {
            "u8" => "u8".into(),
            "u16" => "le16".into(),
            "u32" => "le32".into(),
            "u64" => "le64".into(),
            "Gid" => "u8[16]".into(),
            other => match other.strip_prefix("[u8; ").and_then(|rest| rest.strip_suffix(']')) {
                Some(count) => format!("u8[{count}]"),
                None => panic!("layout.rs: field {} has the unknown type {other}", self.name),
            },
        }
    }
}

/// All items of `layout.rs` from the first section heading on.
pub(crate) fn items() -> Vec<Item> {
    let mut items = Vec::new();
    let mut doc = String::new();
    let mut module = String::from("root");
    let mut structure: Option<Structure> = None;
    let lines = LAYOUT.lines().enumerate().skip_while(|(_, line)| !line.starts_with("// ---- "));
    for (number, line) in lines {
        let text = line.trim();
        if let Some(words) = text.strip_prefix("///") {
            if !doc.is_empty() {
                doc.push(' ');
            }
            doc.push_str(words.trim());
        } else if let Some(title) = line.strip_prefix("// ---- ") {
            items.push(Item::Section(title.trim_end_matches('-').trim().into()));
        } else if let Some(rest) = text.strip_prefix("pub mod ") {
            module = rest.trim_end_matches(" {").into();
            items.push(Item::Module { doc: std::mem::take(&mut doc) });
        } else if let Some(rest) = text.strip_prefix("pub const ") {
            let (name, rest) = rest.split_once(": ").expect("const NAME: TYPE");
            let (_, expression) = rest.split_once(" = ").expect("TYPE = EXPRESSION");
            items.push(Item::Constant(Constant {
                module: module.clone(),
                name: name.into(),
                expression: expression.strip_suffix(';').expect("one line a constant").into(),
                doc: std::mem::take(&mut doc),
            }));
        } else if let (Some(name), None) = (text.strip_suffix(" {"), &structure)
            && name != "layout!"
        {
            let doc = std::mem::take(&mut doc);
            structure = Some(Structure { name: name.into(), doc, fields: Vec::new() });
        } else if let (Some((name, ty)), Some(open)) = (text.split_once(": "), &mut structure) {
            let ty = ty.strip_suffix(',').expect("one line a field").into();
            open.fields.push(Field { name: name.into(), ty, doc: std::mem::take(&mut doc) });
        } else if text == "}" {
            match structure.take() {
                Some(complete) => items.push(Item::Structure(complete)),
                None => module = "root".into(),
            }
        } else if !(text.is_empty() || text == "layout! {") {
            panic!("layout.rs:{}: not understood: {line}", number + 1);
        }
    }
    items
}

/// The constants of `items`.
pub(crate) fn constants(items: &[Item]) -> impl Iterator<Item = &Constant> {
    items.iter().filter_map(|item| match item {
        Item::Constant(constant) => Some(constant),
        _ => None,
    })
}

/// The structures of `items`.
pub(crate) fn structures(items: &[Item]) -> impl Iterator<Item = &Structure> {
    items.iter().filter_map(|item| match item {
        Item::Structure(structure) => Some(structure),
        _ => None,
    })
}
