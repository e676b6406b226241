//! What providers are sent of a schema.

use serde_json::{Map, Value, json};

use super::numbers;
use super::schema_dialects::{for_anthropic, for_gemini, for_openai};

#[test]
fn strict_schemas_are_closed_and_require_everything() {
    let schema = json!({"type": "object", "properties": {
        "required": {"type": "string", "default": "x"},
        "next": {"$ref": "#/$defs/Node"}},
        "$defs": {"Node": {"type": "object", "properties": {"v": {"type": "integer"}}}}});
    let (strict, is_strict) = for_openai(&schema);
    assert!(is_strict);
    assert_eq!(strict["required"], json!(["required", "next"]));
    assert_eq!(strict["properties"]["next"], json!({"$ref": "#/$defs/Node"}));
    assert_eq!(strict["properties"]["required"], json!({"type": "string"}));
    assert_eq!(strict["$defs"]["Node"]["additionalProperties"], json!(false));
}

fn object(property: Value) -> Value {
    json!({"type": "object", "properties": {"p": property}, "required": ["p"]})
}

#[test]
fn what_the_strict_dialect_has_not_is_sent_as_it_is() {
    for property in [
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"type": "object"}),
        json!({}),
        json!(true),
        json!({"title": "Any"}),
        json!({"type": "array"}),
        json!({"type": "array", "prefixItems": [{"type": "integer"}], "items": false}),
        json!({"type": "string", "not": {"const": "x"}}),
        json!({"type": "object", "properties": {}, "patternProperties": {"^x": {"type": "integer"}}}),
        json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
    ] {
        let schema = object(property);
        assert_eq!(for_openai(&schema), (schema.clone(), false), "{schema}");
    }
    let choice = json!({"anyOf": [{"type": "object", "properties": {}}]});
    assert!(!for_openai(&choice).1);
}

#[test]
fn what_the_strict_dialect_says_otherwise_is_converted() {
    for (property, expected) in [
        (
            json!({"oneOf": [{"type": "string"}, {"type": "null"}], "discriminator": {"propertyName": "kind"}}),
            json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true}),
            json!({"type": "array", "items": {"type": "string"}, "description": "(no two alike)"}),
        ),
        (
            json!({"type": "string", "format": "uri", "minLength": 1, "description": "Where"}),
            json!({"type": "string", "description": "Where (at least 1 characters) (in the format uri)"}),
        ),
        (json!({"type": "string", "format": "uuid"}), json!({"type": "string", "format": "uuid"})),
        (
            json!({"type": "string", "pattern": "^(?!x)a"}),
            json!({"type": "string", "description": "(matching ^(?!x)a)"}),
        ),
        (json!({"type": "string", "pattern": "^a+$"}), json!({"type": "string", "pattern": "^a+$"})),
        (json!({"enum": ["a", null]}), json!({"enum": ["a", null], "type": ["string", "null"]})),
        (json!({"const": 3}), json!({"const": 3, "type": "integer"})),
        (json!({"allOf": [{"type": "integer"}], "minimum": 1}), json!({"minimum": 1, "type": "integer"})),
    ] {
        let (strict, is_strict) = for_openai(&object(property.clone()));
        assert!(is_strict, "{property}");
        assert_eq!(strict["properties"]["p"], expected, "{property}");
    }
}

#[test]
fn definitions_have_their_newer_name() {
    let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/definitions/A"}},
        "definitions": {"A": {"type": "object", "properties": {"v": {"type": "integer"}}}, "B": {}}});
    let (strict, is_strict) = for_openai(&schema);
    assert!(is_strict);
    assert_eq!(strict["properties"]["a"], json!({"$ref": "#/$defs/A"}));
    assert_eq!(strict["$defs"]["A"]["required"], json!(["v"]));
    assert!(strict.get("definitions").is_none() && strict["$defs"].get("B").is_none());
}

#[test]
fn a_reference_with_a_description_is_put_in_place() {
    let schema = json!({"type": "object", "properties": {
        "home": {"$ref": "#/$defs/Address", "description": "where they live"},
        "work": {"allOf": [{"$ref": "#/$defs/Address"}], "description": "where they work"},
        "parent": {"$ref": "#/$defs/Person", "description": "who raised them"}},
        "$defs": {
            "Address": {"type": "object", "description": "d", "properties": {"street": {"type": "string"}}},
            "Person": {"type": "object", "properties": {"parent": {"$ref": "#/$defs/Person", "description": "again"}}}}});
    let (strict, is_strict) = for_openai(&schema);
    assert!(is_strict, "{strict}");
    let address = |words: &str| {
        json!({"type": "object", "description": words, "properties": {"street": {"type": "string"}},
        "required": ["street"], "additionalProperties": false})
    };
    assert_eq!(strict["properties"]["home"], address("where they live\nd"));
    assert_eq!(strict["properties"]["work"], address("where they work\nd"));
    assert_eq!(
        strict["properties"]["parent"],
        json!({"anyOf": [{"$ref": "#/$defs/Person"}], "description": "who raised them"})
    );
    assert!(strict["$defs"].get("Address").is_none() && strict["$defs"].get("Person").is_some());
    assert_eq!(for_gemini(&schema)["properties"]["home"]["description"], "where they live\nd");
}

#[test]
fn a_schema_does_not_grow_without_bound() {
    let mut definitions = Map::new();
    for level in 0..40 {
        let next = json!({"$ref": format!("#/$defs/L{}", level + 1), "description": "d"});
        definitions.insert(format!("L{level}"), json!({"type": "object", "properties": {"a": next, "b": next}}));
    }
    definitions.insert("L40".to_owned(), json!({"type": "object", "properties": {"v": {"type": "string"}}}));
    let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/L0", "description": "d"}}, "$defs": definitions});
    assert!(for_openai(&schema).0.to_string().len() < 1_000_000);
}

#[test]
fn limits_that_anthropic_refuses_become_words() {
    let schema = json!({"type": "object", "properties": {
        "age": {"type": "integer", "minimum": 0, "description": "Years"},
        "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2}}});
    let closed = for_anthropic(&schema).unwrap();
    assert_eq!(closed["additionalProperties"], json!(false));
    assert_eq!(closed["properties"]["age"], json!({"type": "integer", "description": "Years (at least 0)"}));
    assert_eq!(closed["properties"]["tags"]["description"], json!("(at least 2 items)"));
    let pair = &closed["properties"]["pair"];
    assert_eq!(pair["items"], json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}));
    assert!(pair.get("prefixItems").is_none() && pair["description"].as_str().unwrap().starts_with("(2 items"));
}

#[test]
fn what_anthropic_cannot_express_is_rejected_with_its_place() {
    let free = json!({"type": "object", "properties": {"scores": {"type": "object", "additionalProperties": {"type": "integer"}}}});
    let error = for_anthropic(&free).unwrap_err();
    assert!(error.contains("$.scores") && error.contains("list of objects"), "{error}");
    let inside = json!({"type": "object", "properties": {"a": {"type": "array", "items": {"$ref": "#/$defs/A"}}},
        "$defs": {"A": {"type": "object", "properties": {"any": {"anyOf": [{"type": "null"}, {"type": "object"}]}}}}});
    assert!(for_anthropic(&inside).unwrap_err().contains("A.any"));
    let endless = json!({"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}},
        "$defs": {"Node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}}});
    assert!(for_anthropic(&endless).unwrap_err().contains("Node contains itself"));
    // An object that takes more than it names is closed.
    let open = json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": true});
    assert_eq!(for_anthropic(&open).unwrap()["additionalProperties"], json!(false));
}

#[test]
fn names_of_properties_are_no_keywords() {
    let schema = object(json!({"type": "object", "properties": {
        "default": {"type": "string"}, "type": {"type": "string"}, "oneOf": {"type": "string"}, "$ref": {"type": "string"}}}));
    let (strict, is_strict) = for_openai(&schema);
    assert!(is_strict, "{strict}");
    assert_eq!(strict["properties"]["p"]["required"], json!(["default", "type", "oneOf", "$ref"]));
}

#[test]
fn large_schemas_are_not_strict() {
    let deep = |levels: usize| {
        (0..levels).fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"n": inner}}))
    };
    assert!(for_openai(&deep(10)).1);
    assert!(!for_openai(&deep(11)).1);
    let values = |count: usize| object(json!({"enum": (0..count).collect::<Vec<_>>()}));
    assert!(for_openai(&values(1000)).1);
    assert!(!for_openai(&values(1001)).1);
    let wide = |count: usize, name: &str| {
        let names = (0..count).map(|number| (format!("{name}{number}"), json!({"type": "string"})));
        json!({"type": "object", "properties": names.collect::<Map<_, _>>()})
    };
    assert!(for_openai(&wide(5000, "p")).1);
    assert!(!for_openai(&wide(5001, "p")).1);
    assert!(!for_openai(&wide(1200, &"p".repeat(100))).1);
}

#[test]
fn references_lead_somewhere() {
    let escaped = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/A~1B"}},
        "$defs": {"A/B": {"type": "string"}, "C": {"type": "string"}}});
    let (strict, is_strict) = for_openai(&escaped);
    assert!(is_strict);
    assert_eq!(strict["$defs"], json!({"A/B": {"type": "string"}}));
    let anchor = json!({"type": "object", "properties": {"a": {"$ref": "#foo"}},
        "$defs": {"F": {"$anchor": "foo", "type": "string"}}});
    assert_eq!(for_openai(&anchor), (anchor.clone(), false));
    assert_eq!(for_gemini(&anchor)["$defs"], anchor["$defs"]);
}

#[test]
fn patterns_that_a_dialect_has_not_become_words() {
    let of = |pattern: &str| object(json!({"type": "string", "pattern": pattern}));
    let words = |schema: &Value| schema["properties"]["p"]["description"].as_str().map(str::to_owned);
    let ahead = Some(r"(matching ^(?=.*\d).+$)".to_owned());
    let looks = of(r"^(?=.*\d).+$");
    assert_eq!(words(&for_openai(&looks).0), ahead);
    assert_eq!(words(&for_anthropic(&looks).unwrap()), ahead);
    assert_eq!(words(&for_gemini(&looks)), ahead);
    for pattern in [r"^\bfoo$", r"^(a)\1$"] {
        let closed = for_anthropic(&of(pattern)).unwrap();
        assert_eq!(words(&closed), Some(format!("(matching {pattern})")));
        assert!(closed["properties"]["p"].get("pattern").is_none());
        assert_eq!(words(&for_openai(&of(pattern)).0), None);
    }
}

#[test]
fn what_anthropic_refuses_is_named() {
    for (property, says) in [
        (json!({"enum": [{"x": 1}]}), "$.p are objects"),
        (json!({"allOf": [{"type": "string"}, {"type": "integer"}]}), "allOf at $.p"),
        (json!({"type": "array", "items": {"$ref": "#"}}), "the whole schema contains itself"),
    ] {
        assert!(for_anthropic(&object(property.clone())).unwrap_err().contains(says), "{property}");
    }
}

#[test]
fn what_gemini_has_not_becomes_words() {
    for (property, expected) in [
        (json!({"const": true}), json!({"type": "boolean", "description": "(exactly true)"})),
        (json!({"const": null}), json!({"type": "null", "description": "(exactly null)"})),
        (json!({"type": "string", "format": "uuid"}), json!({"type": "string", "description": "(in the format uuid)"})),
        (json!({"type": "string", "format": "date"}), json!({"type": "string", "format": "date"})),
        (
            json!({"type": "string", "not": {"const": "b"}, "description": "D"}),
            json!({"type": "string", "description": "D (not: {\"const\":\"b\"})"}),
        ),
        (
            json!({"type": "object", "patternProperties": {"^x": {"maximum": numbers::long("98765432109876543210")}}}),
            json!({"type": "object", "description": "(patternProperties: {\"^x\":{\"maximum\":98765432109876543210}})"}),
        ),
        (
            json!({"allOf": [{"type": "string"}, {"type": "integer"}]}),
            json!({"description": "(all of: [{\"type\":\"string\"},{\"type\":\"integer\"}])"}),
        ),
    ] {
        assert_eq!(for_gemini(&object(property))["properties"]["p"], expected);
    }
}

#[test]
fn a_model_keeps_its_own_description() {
    let schema = json!({"type": "object", "properties": {"p": {"$ref": "#/$defs/M", "description": "the first"}},
        "$defs": {"M": {"type": "object", "description": "A model.", "properties": {"a": {"type": "string"}}}}});
    assert_eq!(for_openai(&schema).0["properties"]["p"]["description"], json!("the first\nA model."));
}

#[test]
fn gemini_has_no_const() {
    let schema = for_gemini(&object(json!({"const": "cat", "pattern": "c"})));
    assert_eq!(schema["properties"]["p"], json!({"enum": ["cat"], "type": "string", "description": "(matching c)"}));
}
