//! Reading a crate into modules: which names each of them defines, imports and uses.
//!
//! Only what is written down counts: a method that is called on a value names no file, and what a macro of another
//! crate expands to is not seen. `#[cfg(test)]` is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemMod, ItemUse, LitStr, Meta, UseTree, Visibility};

use crate::report::{Context, Result};

/// A path as it is written, one name for each step: `crate`, `report`, `say`.
pub(crate) type Steps = Vec<String>;

/// The modules that hang below one root file (`lib.rs`, `main.rs` or a program's), the root first.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    /// The root is at 0.
    pub(crate) modules: Vec<Module>,
    /// Paths of the files, as they are shown.
    pub(crate) files: Vec<PathBuf>,
}

/// A module, in a file of its own or inside another one.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// The module around it; the root has none.
    pub(crate) parent: Option<usize>,
    /// The index of its file.
    pub(crate) file: usize,
    /// What a name in it can mean. A module and a function may share one.
    pub(crate) names: BTreeMap<String, Vec<Meaning>>,
    /// What it imports whole (`use path::*`).
    pub(crate) globs: Vec<Steps>,
    /// What it imports for itself.
    pub(crate) imports: Vec<Steps>,
    /// What it imports to be found here by others as well.
    pub(crate) reexports: Vec<Steps>,
    /// Paths in its code, those of one step too.
    pub(crate) paths: Vec<Steps>,
}

/// What a name in a module means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// Something that is defined here; of an enum, with the names of its variants.
    Item(Vec<String>),
    /// A child, by its index.
    Module(usize),
    /// What this path means.
    Import(Steps),
}

impl Crate {
    /// Reads the crate whose root file this is. `read` returns a file's text, or `None` where there is no such file.
    pub(crate) fn read(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Result<Self> {
        let mut reader = Reader { krate: Self::default(), read };
        let text = read(root).ok_or_else(|| format!("can't read {}", root.display()))?;
        let dir = root.parent().unwrap_or(Path::new(""));
        reader.file(root, &text, None, dir)?;
        Ok(reader.krate)
    }

    /// The same with the files' paths from here on.
    pub(crate) fn shown_from(mut self, dir: &Path) -> Self {
        for file in &mut self.files {
            if let Ok(rest) = file.strip_prefix(dir) {
                *file = rest.to_path_buf();
            }
        }
        self
    }
}

struct Reader<'a> {
    krate: Crate,
    read: &'a dyn Fn(&Path) -> Option<String>,
}

impl Reader<'_> {
    /// Reads a module's file. Files of its children are in `dir`.
    fn file(&mut self, path: &Path, text: &str, parent: Option<usize>, dir: &Path) -> Result<usize> {
        let parsed = syn::parse_file(text).or_fail(|| path.display().to_string())?;
        self.krate.files.push(path.to_path_buf());
        self.module(&parsed.items, self.krate.files.len() - 1, parent, dir)
    }

    fn module(&mut self, items: &[Item], file: usize, parent: Option<usize>, dir: &Path) -> Result<usize> {
        let index = self.krate.modules.len();
        self.krate.modules.push(Module { parent, file, ..Module::default() });
        let mut collector = Collector::default();
        for item in items {
            collector.visit_item(item);
        }
        self.krate.modules[index] = Module { parent, file, ..collector.module };
        for child in collector.children {
            let name = child.ident.to_string();
            let below = dir.join(&name);
            let child = match &child.content {
                Some((_, items)) => self.module(items, file, Some(index), &below)?,
                None => self.child(child, index, dir, &below)?,
            };
            let meanings = self.krate.modules[index].names.entry(name).or_default();
            meanings.push(Meaning::Module(child));
        }
        Ok(index)
    }

    /// A child in a file of its own.
    fn child(&mut self, child: &ItemMod, parent: usize, dir: &Path, below: &Path) -> Result<usize> {
        if child.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
            return Err(format!(
                "{}: #[path] is not understood here",
                dir.join(child.ident.to_string()).display()
            )
            .into());
        }
        let beside = below.with_extension("rs");
        let within = below.join("mod.rs");
        let found = [beside, within].into_iter().find_map(|path| (self.read)(&path).map(|text| (path, text)));
        let (path, text) = found.ok_or_else(|| format!("can't find the module {}", below.display()))?;
        self.file(&path, &text, Some(parent), below)
    }
}

/// Collects the names of one module, and of no other.
#[derive(Default)]
struct Collector<'ast> {
    module: Module,
    children: Vec<&'ast ItemMod>,
}

impl Collector<'_> {
    fn define(&mut self, name: &syn::Ident, variants: Vec<String>) {
        self.module.names.entry(plain(name)).or_default().push(Meaning::Item(variants));
    }

    fn import(&mut self, tree: &UseTree, before: &[String], private: bool) {
        match tree {
            UseTree::Path(path) => {
                let steps = [before, &[plain(&path.ident)]].concat();
                self.import(&path.tree, &steps, private);
            }
            UseTree::Name(name) => self.import_as(before, &plain(&name.ident), None, private),
            UseTree::Rename(name) => {
                self.import_as(before, &plain(&name.ident), Some(plain(&name.rename)), private);
            }
            UseTree::Glob(_) => self.module.globs.push(before.to_vec()),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.import(tree, before, private);
                }
            }
        }
    }

    fn import_as(&mut self, before: &[String], name: &str, rename: Option<String>, private: bool) {
        // `use a::b::{self}` means b.
        let steps = if name == "self" && !before.is_empty() {
            before.to_vec()
        } else {
            [before, &[name.to_owned()]].concat()
        };
        let shown = rename.or_else(|| steps.last().cloned()).unwrap_or_default();
        self.module.names.entry(shown).or_default().push(Meaning::Import(steps.clone()));
        if private { self.module.imports.push(steps) } else { self.module.reexports.push(steps) }
    }

    fn path(&mut self, steps: Steps) {
        if !steps.is_empty() {
            self.module.paths.push(steps);
        }
    }

    /// Paths in what is not parsed: the arguments of macros and attributes.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut steps = Steps::new();
        let (mut colons, mut field) = (0, false);
        for token in tokens {
            match token {
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.path(std::mem::take(&mut steps));
                    }
                    // A field, a method, a lifetime and the rest of `::crate::name` are no names of this module.
                    let foreign = colons == 2 && steps.is_empty();
                    if !field && !foreign {
                        steps.push(plain(&name));
                    }
                    (colons, field) = (0, false);
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                TokenTree::Punct(mark) => {
                    self.path(std::mem::take(&mut steps));
                    (colons, field) = (0, matches!(mark.as_char(), '.' | '\''));
                }
                TokenTree::Group(group) => {
                    if group.delimiter() != Delimiter::None {
                        self.path(std::mem::take(&mut steps));
                    }
                    (colons, field) = (0, false);
                    self.tokens(group.stream());
                }
                TokenTree::Literal(_) => {}
            }
        }
        self.path(steps);
    }

    /// Paths in the strings of serde's attributes: `#[serde(with = "module")]`.
    fn strings(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Literal(literal) => {
                    let path = syn::parse_str::<LitStr>(&literal.to_string())
                        .and_then(|text| text.parse_with(syn::Path::parse_mod_style));
                    if let Ok(path) = path {
                        self.path(path.segments.iter().map(|step| plain(&step.ident)).collect());
                    }
                }
                TokenTree::Group(group) => self.strings(group.stream()),
                _ => {}
            }
        }
    }
}

impl<'ast> Visit<'ast> for Collector<'ast> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        match item {
            Item::Const(item) => self.define(&item.ident, Vec::new()),
            Item::Enum(item) => {
                self.define(&item.ident, item.variants.iter().map(|variant| plain(&variant.ident)).collect());
            }
            Item::Fn(item) => self.define(&item.sig.ident, Vec::new()),
            Item::Static(item) => self.define(&item.ident, Vec::new()),
            Item::Struct(item) => self.define(&item.ident, Vec::new()),
            Item::Trait(item) => self.define(&item.ident, Vec::new()),
            Item::TraitAlias(item) => self.define(&item.ident, Vec::new()),
            Item::Type(item) => self.define(&item.ident, Vec::new()),
            Item::Union(item) => self.define(&item.ident, Vec::new()),
            Item::Macro(item) => {
                if let Some(name) = &item.ident {
                    self.define(name, Vec::new());
                }
            }
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.children.push(item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_none() {
            self.import(&item.tree, &[], matches!(item.vis, Visibility::Inherited));
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() {
            self.path(path.segments.iter().map(|step| plain(&step.ident)).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone());
            if attribute.path().is_ident("serde") {
                self.strings(list.tokens.clone());
            }
        }
    }

    /// The path in `pub(in path)` uses nothing.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

fn plain(name: &syn::Ident) -> String {
    let name = name.to_string();
    name.strip_prefix("r#").map_or(name.clone(), str::to_owned)
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
