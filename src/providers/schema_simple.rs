//! A JSON Schema expressed with fewer means, which the dialects of providers have in common. Used by
//! [`schema_dialects`](super::schema_dialects).

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::schema_words::{LOOK_AROUND, put_pattern_into_words};

/// How many references with neighbours are put in place, at most: a schema must not grow without bound.
const MOST_INLINED: usize = 500;
/// What says nothing about the shape of an answer.
pub const NOTES: &[&str] =
    &["default", "examples", "$schema", "$id", "$comment", "deprecated", "readOnly", "writeOnly", "discriminator"];

/// The same schema with fewer means: `definitions` are `$defs`, `oneOf` is `anyOf`, `allOf` is merged, a reference has no
/// neighbours, patterns with look-around are words.
pub fn simplified(schema: &Value) -> Value {
    let mut whole = schema.clone();
    if let Some(Value::Object(old)) = whole.as_object_mut().and_then(|root| root.shift_remove("definitions")) {
        let root = whole.as_object_mut();
        if let Some(Value::Object(defs)) =
            root.map(|root| root.entry("$defs").or_insert_with(|| Value::Object(Map::new())))
        {
            defs.extend(old);
        }
    }
    walk(&mut whole, &mut |object| {
        if let Some(Value::String(target)) = object.get_mut("$ref")
            && let Some(name) = target.strip_prefix("#/definitions/")
        {
            *target = format!("#/$defs/{name}");
        }
    });
    let root = whole.clone();
    let mut simplifier = Simplifier { root: &root, inlined: 0, inside: Vec::new() };
    simplifier.node(&mut whole);
    drop_unused(&mut whole);
    whole
}

struct Simplifier<'a> {
    root: &'a Value,
    inlined: usize,
    /// References that are being put in place.
    inside: Vec<String>,
}

impl Simplifier<'_> {
    fn node(&mut self, value: &mut Value) {
        let Value::Object(object) = value else {
            if let Value::Array(values) = value {
                values.iter_mut().for_each(|value| self.node(value));
            }
            return;
        };
        self.merge_all_of(object);
        let entered = self.put_in_place(object);
        if !object.contains_key("anyOf")
            && let Some(choices) = object.shift_remove("oneOf")
        {
            object.insert("anyOf".to_owned(), choices);
            object.shift_remove("discriminator");
        }
        put_pattern_into_words(object, LOOK_AROUND);
        each_schema(object, &mut |inner| self.node(inner));
        if entered {
            self.inside.pop();
        }
    }

    /// Puts what a reference refers to in its place, if the reference has neighbours; whether it did.
    fn put_in_place(&mut self, object: &mut Map<String, Value>) -> bool {
        let Some(Value::String(target)) = object.get("$ref").cloned() else { return false };
        let says_something =
            object.keys().any(|name| name != "$ref" && name != "title" && !NOTES.contains(&name.as_str()));
        if !says_something || object.contains_key("$defs") {
            // Nothing is lost.
            if !object.contains_key("$defs") {
                object.retain(|name, _| name == "$ref");
            }
            return false;
        }
        let found = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)).and_then(Value::as_object);
        let is_endless =
            self.inside.contains(&target) || self.inlined >= MOST_INLINED || self.reaches(&target, &target);
        let Some(found) = found.filter(|_| !is_endless) else {
            object.shift_remove("$ref");
            object.insert("anyOf".to_owned(), json!([{"$ref": target}]));
            return false;
        };
        self.inlined += 1;
        let mut merged = found.clone();
        object.shift_remove("$ref");
        join_descriptions(object, found.get("description"));
        merged.extend(std::mem::take(object));
        *object = merged;
        self.inside.push(target);
        // What was put in place may itself consist of parts, or be a reference.
        self.merge_all_of(object);
        true
    }

    /// Merges the parts of an `allOf` that do not contradict each other; else it stays.
    fn merge_all_of(&mut self, object: &mut Map<String, Value>) {
        let Some(Value::Array(parts)) = object.get("allOf").cloned() else { return };
        let mut merged = object.clone();
        merged.shift_remove("allOf");
        for part in parts {
            let target = part.get("$ref").and_then(Value::as_str).map(str::to_owned);
            let part = match &target {
                Some(target) if self.inlined < MOST_INLINED && !self.reaches(target, target) => {
                    self.inlined += 1;
                    let found = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer)).cloned();
                    let (Some(Value::Object(mut found)), Value::Object(mut near)) = (found, part) else { return };
                    join_descriptions(&mut near, found.get("description"));
                    found.extend(near.into_iter().filter(|(name, _)| name != "$ref"));
                    Value::Object(found)
                }
                Some(_) if merged.is_empty() => part,
                Some(_) => return,
                None => part,
            };
            let Value::Object(mut part) = part else { return };
            if part.contains_key("allOf") {
                self.merge_all_of(&mut part);
            }
            if !merge(&mut merged, part) {
                return;
            }
        }
        *object = merged;
    }

    /// Whether a definition refers, by any way, to `wanted`.
    fn reaches(&self, from: &str, wanted: &str) -> bool {
        let mut seen = HashSet::new();
        let mut open = vec![from.to_owned()];
        while let Some(target) = open.pop() {
            let found = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            for next in found.map(references).unwrap_or_default() {
                if next == wanted {
                    return true;
                }
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        false
    }
}

/// Adds the keywords of a part to a schema; `false` if they contradict each other.
fn merge(whole: &mut Map<String, Value>, part: Map<String, Value>) -> bool {
    for (name, value) in part {
        match (whole.get_mut(&name), value) {
            (None, value) => drop(whole.insert(name, value)),
            (Some(known), value) if *known == value => {}
            (Some(Value::Object(known)), Value::Object(more)) if name == "properties" || name == "$defs" => {
                for (key, schema) in more {
                    if known.get(&key).is_some_and(|there| *there != schema) {
                        return false;
                    }
                    known.insert(key, schema);
                }
            }
            (Some(Value::Array(known)), Value::Array(more)) if name == "required" => {
                for one in more {
                    if !known.contains(&one) {
                        known.push(one);
                    }
                }
            }
            // Of these, the outermost counts.
            (Some(_), value) if name == "description" => join_descriptions(whole, Some(&value)),
            (Some(_), _) if name == "title" || NOTES.contains(&name.as_str()) => {}
            _ => return false,
        }
    }
    true
}

/// Adds a description to the one that an object has: a field's own words come before those of its model.
fn join_descriptions(object: &mut Map<String, Value>, more: Option<&Value>) {
    if let (Some(Value::String(own)), Some(Value::String(more))) = (object.get_mut("description"), more)
        && !own.contains(more.as_str())
    {
        *own = format!("{own}\n{more}");
    }
}

/// Whether every reference leads to something in the schema itself.
pub fn resolves(schema: &Value) -> bool {
    let mut targets = Vec::new();
    walk(&mut schema.clone(), &mut |object| {
        targets.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned));
    });
    targets.iter().all(|target| target.strip_prefix('#').is_some_and(|pointer| schema.pointer(pointer).is_some()))
}

/// What refers to a definition.
fn target_of(name: &str) -> String {
    format!("#/$defs/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// A definition that contains itself.
pub fn recursive(schema: &Value) -> Option<String> {
    let simplifier = Simplifier { root: schema, inlined: 0, inside: Vec::new() };
    if references(schema).iter().any(|target| target == "#" || simplifier.reaches(target, "#")) {
        return Some("the whole schema".to_owned());
    }
    let definitions = schema.get("$defs")?.as_object()?;
    definitions
        .keys()
        .find(|name| {
            let target = target_of(name);
            simplifier.reaches(&target, &target)
        })
        .cloned()
}

/// All targets of references in a schema.
fn references(schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    // The root's definitions are not part of the root itself.
    let mut copy = schema.clone();
    if let Value::Object(object) = &mut copy {
        object.shift_remove("$defs");
    }
    walk(&mut copy, &mut |object| found.extend(object.get("$ref").and_then(Value::as_str).map(str::to_owned)));
    found
}

/// Drops definitions that nothing refers to any more.
fn drop_unused(schema: &mut Value) {
    // What leads elsewhere may mean any of them (`$anchor`, `$id`).
    if !resolves(schema) {
        return;
    }
    let mut used = HashSet::new();
    let mut open = references(schema);
    while let Some(target) = open.pop() {
        if let Some(found) = target.strip_prefix('#').and_then(|pointer| schema.pointer(pointer)) {
            open.extend(references(found).into_iter().filter(|next| !used.contains(next)));
        }
        used.insert(target);
    }
    let Some(root) = schema.as_object_mut() else { return };
    if let Some(Value::Object(definitions)) = root.get_mut("$defs") {
        definitions.retain(|name, _| {
            let whole = target_of(name);
            used.iter().any(|target| *target == whole || target.starts_with(&format!("{whole}/")))
        });
        if definitions.is_empty() {
            root.shift_remove("$defs");
        }
    }
}

/// Applies a change to every schema inside a schema, the outermost first. Names of properties are no keywords.
pub fn walk(value: &mut Value, change: &mut impl FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            change(object);
            each_schema(object, &mut |inner| walk(inner, change));
        }
        Value::Array(values) => values.iter_mut().for_each(|schema| walk(schema, change)),
        _ => {}
    }
}

/// Visits the schemas that stand directly in a schema, and lists of them.
pub fn each_schema(object: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Value)) {
    for (keyword, inner) in object.iter_mut() {
        match (keyword.as_str(), inner) {
            (
                "properties" | "$defs" | "definitions" | "patternProperties" | "dependentSchemas",
                Value::Object(named),
            ) => {
                named.values_mut().for_each(&mut *visit);
            }
            ("enum" | "const" | "default" | "examples" | "required" | "dependentRequired", _) => {}
            (_, inner @ (Value::Object(_) | Value::Array(_))) => visit(inner),
            _ => {}
        }
    }
}
