//! The layers of a configuration and where each value is from.
//!
//! The shape that a layer is held against is not written down a second time: it is that of [`Config`] itself, read
//! off the compiled-in defaults by way of serde.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use figment::{
    Figment, Metadata, Profile, Provider,
    value::{Dict, Map, Value as FigmentValue},
};
use serde_json::Value as Json;
use toml::{Table, Value};

use super::{
    Overrides, Settings,
    check::Fault,
    text::{Config, EMBEDDED},
};
use crate::exit::{Exit, Failure, OrExit as _};

/// Every variable that sets a key begins with this.
const PREFIX: &str = "TIDEMARK_";

/// Separates section and key in a variable's name, since keys have single underscores in them.
const SEPARATOR: &str = "__";

/// The name of the bottom layer.
const BUILT_IN: &str = "built-in default";

/// What is laid over the built-in defaults, as it was found.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The configuration file: its path and its text.
    pub file: Option<(PathBuf, String)>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// The flags.
    pub overrides: Overrides,
}

impl Layers {
    /// Reads the file and the environment.
    pub fn gather(file: Option<&Path>, overrides: &Overrides) -> Result<Self, Failure> {
        let file = match file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| anyhow::Error::new(error).context(format!("reading {}", path.display())))
                    .or_exit(Exit::Usage)?;
                Some((path.to_owned(), text))
            }
        };
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let environment = std::env::vars_os()
            .map(|(name, value)| (lossy(name), lossy(value)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Ok(Self { file, environment, overrides: overrides.clone() })
    }
}

/// All layers merged.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The values; where a layer's entry was no good, the one below it.
    pub config: Config,
    /// Entries that have no place in a [`Config`].
    shape_faults: Vec<Fault>,
    /// Where the values that are not built-in defaults are from.
    origins: BTreeMap<String, String>,
}

impl Effective {
    /// Merges the layers. Entries that don't fit are left out and kept as faults.
    pub fn of(layers: &Layers) -> Self {
        let shape = Shape::of_config();
        let mut faults = Vec::new();
        let mut merged = Figment::from(Layer::new(BUILT_IN, embedded_table()));
        let mut lines = BTreeMap::new();
        if let Some((path, text)) = &layers.file {
            let file = path.display().to_string();
            match text.parse::<Table>() {
                Ok(table) => {
                    lines = key_lines(text);
                    let origin = |key: &str| match lines.get(key) {
                        Some(line) => format!("{file}:{line}"),
                        None => file.clone(),
                    };
                    merged = merged.merge(Layer::new(&file, shape.prune("", table, &origin, &mut faults)));
                }
                Err(error) => faults.push(Fault {
                    key: file.clone(),
                    problem: format!("is not TOML: {}", error.message()),
                    origin: error.span().map(|span| format!("line {}", line_of(text, span.start))),
                }),
            }
        }
        for (name, value) in &layers.environment {
            if let Some((key, table)) = shape.variable(name, value, &mut faults) {
                let origin = format!("environment variable {name}");
                merged = merged.merge(Layer::new(&origin, nest(&key, table)));
            }
        }
        for (flag, key, value) in flags(&layers.overrides) {
            merged = merged.merge(Layer::new(flag, nest(key, value)));
        }
        let origins = shape
            .keys()
            .into_iter()
            .filter_map(|key| {
                let name = merged.find_metadata(&key)?.name.clone();
                let line = match &layers.file {
                    Some((path, _)) if path.display().to_string() == name => lines.get(&key),
                    _ => None,
                };
                let origin = line.map_or_else(|| name.to_string(), |line| format!("{name}:{line}"));
                (name != BUILT_IN).then_some((key, origin))
            })
            .collect();
        let config = merged.extract().expect("every layer was held against the shape of Config");
        Self { config, shape_faults: faults, origins }
    }

    /// Checks everything, so all faults are reported at once.
    pub fn settings(&self) -> Result<Settings, Vec<Fault>> {
        let mut faults = self.shape_faults.clone();
        match self.config.check() {
            Ok(settings) if faults.is_empty() => return Ok(settings),
            Ok(_) => {}
            Err(checked) => faults.extend(
                checked.into_iter().map(|fault| Fault { origin: self.origin(&fault.key).map(str::to_owned), ..fault }),
            ),
        }
        Err(faults)
    }

    /// Where a value is from; `None` for a built-in default.
    pub fn origin(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(String::as_str)
    }
}

fn embedded_table() -> Table {
    EMBEDDED.parse().expect("config/embedded.toml is compiled in, and a test parses it")
}

fn flags(overrides: &Overrides) -> impl Iterator<Item = (&'static str, &'static str, Value)> {
    let number = |number: Option<u32>| number.map(|number| Value::from(i64::from(number)));
    let text = |text: &Option<String>| text.clone().map(Value::from);
    let list = |text: &str| Value::from(text.split(',').filter(|name| !name.is_empty()).collect::<Vec<_>>());
    let data_dir = overrides.data_dir.as_ref().map(|dir| Value::from(dir.to_string_lossy().into_owned()));
    let skip_batches = Some(&overrides.skip_batches).filter(|batches| !batches.is_empty()).cloned().map(Value::from);
    [
        ("--workers", "workers", number(overrides.workers)),
        ("--data-dir", "data_dir", data_dir),
        ("--listen", "http.listen", text(&overrides.listen)),
        ("--on-gap", "kafka.on_gap", text(&overrides.on_gap)),
        ("--skip-batch", "kafka.skip_batches", skip_batches),
        ("--partitions", "source.partitions", number(overrides.partitions)),
        ("--lateness", "time.lateness", text(&overrides.lateness)),
        ("--hot", "index.hot", text(&overrides.hot)),
        ("--as-of", "index.as_of", text(&overrides.as_of)),
        ("--interval", "checkpoint.interval", text(&overrides.interval)),
        ("--functions", "functions.default", overrides.functions.as_deref().map(list)),
    ]
    .into_iter()
    .filter_map(|(flag, key, value)| Some((flag, key, value?)))
}

/// The table that holds one value under a dotted key.
fn nest(key: &str, value: Value) -> Table {
    let (outer, value) = match key.split_once('.') {
        Some((outer, inner)) => (outer, Value::Table(nest(inner, value))),
        None => (key, value),
    };
    Table::from_iter([(outer.to_owned(), value)])
}

fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
}

/// The line of each key, by its dotted path.
fn key_lines(text: &str) -> BTreeMap<String, usize> {
    fn visit(text: &str, prefix: &str, table: &toml::de::DeTable<'_>, lines: &mut BTreeMap<String, usize>) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            lines.insert(path.clone(), line_of(text, key.span().start));
            if let Some(table) = value.get_ref().as_table() {
                visit(text, &path, table, lines);
            }
        }
    }
    let mut lines = BTreeMap::new();
    if let Ok(table) = toml::de::DeTable::parse(text) {
        visit(text, "", table.get_ref(), &mut lines);
    }
    lines
}

/// One layer for figment, named by where it is from.
struct Layer {
    name: String,
    table: Table,
}

impl Layer {
    fn new(name: &str, table: Table) -> Self {
        Self { name: name.to_owned(), table }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(Cow::Owned(self.name.clone()))
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        let dict = FigmentValue::serialize(&self.table)?.into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

/// What may stand where.
#[derive(Debug)]
enum Shape {
    Text,
    Integer,
    Bool,
    List,
    /// A table with any keys and scalar values.
    Open,
    Section(BTreeMap<String, Shape>),
}

impl Shape {
    fn of_config() -> Self {
        let json = serde_json::to_value(Config::embedded()).expect("text and numbers always have a JSON form");
        Self::of_json(&json)
    }

    fn of_json(json: &Json) -> Self {
        match json {
            // The only empty table is the one of free keys.
            Json::Object(fields) if fields.is_empty() => Shape::Open,
            Json::Object(fields) => {
                Shape::Section(fields.iter().map(|(key, value)| (key.clone(), Self::of_json(value))).collect())
            }
            Json::Array(_) => Shape::List,
            Json::Number(_) => Shape::Integer,
            Json::Bool(_) => Shape::Bool,
            // Only text is optional.
            Json::String(_) | Json::Null => Shape::Text,
        }
    }

    /// In words, for a fault.
    fn wanted(&self) -> &'static str {
        match self {
            Shape::Text => "text in quotes",
            Shape::Integer => "a whole number",
            Shape::Bool => "true or false",
            Shape::List => "a list of texts",
            Shape::Open => "a table of texts",
            Shape::Section(_) => "a section",
        }
    }

    fn at(&self, key: &str) -> Option<&Shape> {
        key.split('.').try_fold(self, |shape, part| match shape {
            Shape::Section(fields) => fields.get(part),
            _ => None,
        })
    }

    /// All dotted keys, without the sections.
    fn keys(&self) -> Vec<String> {
        fn visit(prefix: &str, shape: &Shape, keys: &mut Vec<String>) {
            match shape {
                Shape::Section(fields) => fields.iter().for_each(|(key, shape)| visit(&join(prefix, key), shape, keys)),
                _ => keys.push(prefix.to_owned()),
            }
        }
        let mut keys = Vec::new();
        visit("", self, &mut keys);
        keys
    }

    /// All dotted sections.
    fn sections(&self) -> BTreeSet<String> {
        self.keys().iter().filter_map(|key| key.rsplit_once('.')).map(|(section, _)| section.to_owned()).collect()
    }

    /// Keeps of a section what fits; the rest become faults.
    fn prune(&self, prefix: &str, table: Table, origin: &dyn Fn(&str) -> String, faults: &mut Vec<Fault>) -> Table {
        let Shape::Section(fields) = self else { return Table::new() };
        let mut kept = Table::new();
        for (name, value) in table {
            let key = join(prefix, &name);
            let fitted = match fields.get(&name) {
                None => Err(format!("unknown key; the nearest is {}", Shape::of_config().nearest(&key))),
                Some(shape @ Shape::Section(_)) => match value {
                    Value::Table(inner) => Ok(Value::Table(shape.prune(&key, inner, origin, faults))),
                    other => Err(format!("a section is wanted, not {}", other.type_str())),
                },
                Some(shape) => shape.fit(value),
            };
            match fitted {
                Ok(value) => drop(kept.insert(name, value)),
                Err(problem) => faults.push(Fault { problem, origin: Some(origin(&key)), key }),
            }
        }
        kept
    }

    /// The value of a leaf, or what is wrong with it. Never says the value: it may be a secret.
    fn fit(&self, value: Value) -> Result<Value, String> {
        let fits = match (self, &value) {
            (Shape::Text, Value::String(_))
            | (Shape::Integer, Value::Integer(_))
            | (Shape::Bool, Value::Boolean(_)) => true,
            (Shape::List, Value::Array(items)) => items.iter().all(Value::is_str),
            (Shape::Open, Value::Table(entries)) => {
                entries.values().all(|entry| entry.is_str() || entry.is_integer() || entry.is_bool())
            }
            _ => false,
        };
        match value {
            _ if !fits => Err(format!("{} is wanted, not {}", self.wanted(), value.type_str())),
            Value::Table(entries) => Ok(Value::Table(entries.into_iter().map(as_text).collect())),
            fitting => Ok(fitting),
        }
    }

    /// The key and value that an environment variable sets, if it is about a key.
    ///
    /// A name without a separator that is no key is somebody else's: Kubernetes sets `TIDEMARK_PORT` and
    /// `TIDEMARK_SERVICE_HOST` in every pod beside a service called tidemark.
    fn variable(&self, name: &str, text: &str, faults: &mut Vec<Fault>) -> Option<(String, Value)> {
        let bare = name.strip_prefix(PREFIX)?;
        let key = bare.to_ascii_lowercase().replace(SEPARATOR, ".");
        let parsed = match self.at(&key) {
            None | Some(Shape::Section(_)) if !bare.contains(SEPARATOR) => return None,
            None | Some(Shape::Section(_)) => {
                let nearest = self.nearest(&key);
                let variable = nearest.to_ascii_uppercase().replace('.', SEPARATOR);
                Err(format!("unknown key; the nearest is {nearest} ({PREFIX}{variable})"))
            }
            Some(Shape::Text) => Ok(Value::from(text)),
            Some(shape @ Shape::Integer) => {
                text.parse().map(Value::Integer).map_err(|_| shape.wanted().to_owned() + " is wanted")
            }
            Some(shape @ Shape::Bool) => {
                text.parse().map(Value::Boolean).map_err(|_| shape.wanted().to_owned() + " is wanted")
            }
            Some(Shape::List) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Ok(items.map(Value::from).collect::<Vec<_>>().into())
            }
            Some(shape @ Shape::Open) => match format!("table = {text}").parse::<Table>() {
                Ok(mut table) => shape.fit(table.remove("table").unwrap_or(Value::Boolean(false))),
                Err(_) => Err("a table of texts is wanted, such as { \"client.id\" = \"t1\" }".to_owned()),
            },
        };
        match parsed {
            Ok(value) => Some((key, value)),
            Err(problem) => {
                faults.push(Fault { key, problem, origin: Some(format!("environment variable {name}")) });
                None
            }
        }
    }

    /// The known key or section that an unknown one most likely means: alike as a whole, or alike in its last part.
    fn nearest(&self, key: &str) -> String {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let likeness = |known: &String| {
            let whole = strsim::jaro_winkler(known, key);
            // A little less, so that of two keys with the same last part the one in the same section wins.
            let tail = 0.98 * strsim::jaro_winkler(&last(known), &last(key));
            whole.max(tail)
        };
        let paths = self.keys().into_iter().chain(self.sections());
        paths.max_by(|a, b| likeness(a).total_cmp(&likeness(b))).expect("there are keys")
    }
}

/// librdkafka takes all values as text.
fn as_text((name, value): (String, Value)) -> (String, Value) {
    let text = match value {
        Value::Integer(number) => Value::String(number.to_string()),
        Value::Boolean(flag) => Value::String(flag.to_string()),
        other => other,
    };
    (name, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Layers {
        Layers { file: Some(("t.toml".into(), text.to_owned())), ..Layers::default() }
    }

    fn variables(pairs: &[(&str, &str)]) -> Layers {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Layers { environment, ..Layers::default() }
    }

    fn faults(layers: &Layers) -> Vec<String> {
        Effective::of(layers).settings().err().unwrap_or_default().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn flags_stand_over_environment_over_file_over_defaults() {
        let all = Layers {
            overrides: Overrides { listen: Some("127.0.0.1:4".to_owned()), ..Overrides::default() },
            ..Layers {
                environment: variables(&[
                    ("TIDEMARK_HTTP__LISTEN", "127.0.0.1:3"),
                    ("TIDEMARK_DATA_DIR", "from-env"),
                    ("TIDEMARK_WORKERS", "3"),
                ])
                .environment,
                ..file("workers = 2\n[http]\nlisten = \"127.0.0.1:2\"\n[source]\npartitions = 7\n")
            }
        };
        let effective = Effective::of(&all);
        let settings = effective.settings().unwrap();
        assert_eq!(settings.http.listen.port(), 4);
        assert_eq!(settings.data_dir, Path::new("from-env"));
        assert_eq!(settings.workers.get(), 3);
        assert_eq!(settings.source.partitions.get(), 7);
        assert_eq!(settings.checkpoint.keep.get(), 3);
        let origins =
            ["http.listen", "data_dir", "source.partitions", "checkpoint.keep"].map(|key| effective.origin(key));
        let expect = [Some("--listen"), Some("environment variable TIDEMARK_DATA_DIR"), Some("t.toml:5"), None];
        assert_eq!(origins, expect);
    }

    #[test]
    fn unknown_keys_are_named_with_the_nearest_and_their_place() {
        for (text, expect) in [
            ("\n[time]\nlatenes = \"1m\"", "time.latenes: unknown key; the nearest is time.lateness (t.toml:3)"),
            ("lateness = \"1m\"", "lateness: unknown key; the nearest is time.lateness (t.toml:1)"),
            ("[http]\ndata_dir = \"d\"", "http.data_dir: unknown key; the nearest is data_dir (t.toml:2)"),
            ("[checkpoints]\nkeep = 3", "checkpoints: unknown key; the nearest is checkpoint (t.toml:1)"),
            (
                "[http.limits]\nbody_byte = \"1MiB\"",
                "http.limits.body_byte: unknown key; the nearest is http.limits.body_bytes (t.toml:2)",
            ),
        ] {
            assert_eq!(faults(&file(text)), [expect]);
        }
        assert_eq!(
            faults(&variables(&[("TIDEMARK_HTTP__LISTN", "x")])),
            ["http.listn: unknown key; the nearest is http.listen (TIDEMARK_HTTP__LISTEN) (environment variable \
              TIDEMARK_HTTP__LISTN)"]
        );
    }

    #[test]
    fn a_wrong_type_is_a_fault_like_any_other_and_all_come_at_once() {
        let text =
            "workers = \"two\"\nsink = 1\n[kafka]\nbrokers = [1]\n[time]\ntick = 7\nlateness = \"soon\"\nx = 1\n";
        let found = faults(&file(text));
        let keys: Vec<&str> = found.iter().filter_map(|fault| fault.split(':').next()).collect();
        assert_eq!(keys, ["kafka.brokers", "sink", "time.tick", "time.x", "workers", "time.lateness"], "{found:#?}");
        assert!(found[2].contains("text in quotes is wanted, not integer (t.toml:6)"), "{}", found[2]);
        assert!(found[5].ends_with("(t.toml:7)"), "{}", found[5]);
    }

    #[test]
    fn broken_toml_is_a_fault_with_its_line_and_without_its_text() {
        let found = faults(&file("workers = 2\nsecret = \"hunter2\n"));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("t.toml: is not TOML") && found[0].contains("line 2"), "{found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }

    #[test]
    fn variables_are_read_by_the_type_of_their_key() {
        let effective = Effective::of(&variables(&[
            ("TIDEMARK_KAFKA__BROKERS", "a:1, b:2"),
            ("TIDEMARK_KAFKA__PROPERTIES", "{ \"client.id\" = \"t\", \"queued.min.messages\" = 5 }"),
            ("TIDEMARK_CASSANDRA__TLS", "true"),
            ("TIDEMARK_CASSANDRA__USERNAME", "12345"),
            ("TIDEMARK_CASSANDRA__PASSWORD_FILE", "p"),
        ]));
        effective.settings().unwrap();
        let Config { kafka, cassandra, .. } = effective.config;
        assert_eq!(kafka.brokers, ["a:1", "b:2"]);
        let properties: Vec<_> = kafka.properties.0.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(properties, [("client.id", "t"), ("queued.min.messages", "5")]);
        assert!(cassandra.tls);
        assert_eq!(cassandra.username.as_deref(), Some("12345"));
        let found = faults(&variables(&[("TIDEMARK_SOURCE__PARTITIONS", "four")]));
        assert_eq!(
            found,
            ["source.partitions: a whole number is wanted (environment variable TIDEMARK_SOURCE__PARTITIONS)"]
        );
    }

    #[test]
    fn what_kubernetes_puts_into_the_environment_is_not_ours() {
        let found = faults(&variables(&[
            ("TIDEMARK_PORT", "tcp://10.0.0.1:7070"),
            ("TIDEMARK_SERVICE_HOST", "10.0.0.1"),
            ("TIDEMARK_HTTP", "x"),
            ("TIDEMARK_CONFIG", "f"),
        ]));
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn secrets_are_not_in_faults_or_debug_output() {
        let layers = Layers {
            environment: variables(&[("TIDEMARK_CASSANDRA__PASSWORD", "canary-1")]).environment,
            ..file(
                "[kafka]\nproperties = { \"sasl.password\" = \"canary-2\" }\n[cassandra]\npassword_file = [\"canary-3\"]",
            )
        };
        let effective = Effective::of(&layers);
        let shown = format!("{:?} {effective:?}", faults(&layers));
        assert!(shown.contains("cassandra.password") && shown.contains("sasl.password"), "{shown}");
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[cfg(all(feature = "kafka", feature = "cassandra"))]
    #[test]
    fn every_file_in_config_is_valid() {
        let mut files = 0;
        for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/config")).unwrap() {
            let path = entry.unwrap().path();
            let layers = Layers::gather(Some(&path), &Overrides::default()).unwrap();
            let layers = Layers { environment: Vec::new(), ..layers };
            assert_eq!(faults(&layers), Vec::<String>::new(), "{}", path.display());
            files += 1;
        }
        assert!(0 < files);
    }

    #[test]
    fn the_embedded_file_names_every_key() {
        let shape = Shape::of_config();
        let Shape::Section(sections) = &shape else { panic!("{shape:?}") };
        // Uncommenting the keys without a default must give a file with every key, and nothing else.
        let uncommented: String = EMBEDDED
            .lines()
            .map(|line| match line.strip_prefix("# ") {
                Some(rest)
                    if rest
                        .split_once(" = ")
                        .is_some_and(|(key, _)| key.chars().all(|c| c == '_' || c.is_ascii_lowercase())) =>
                {
                    rest
                }
                _ => line,
            })
            .map(|line| format!("{line}\n"))
            .collect();
        let lines = key_lines(&uncommented);
        let missing: Vec<_> = shape.keys().into_iter().filter(|key| !lines.contains_key(key)).collect();
        assert_eq!(missing, Vec::<String>::new());
        assert_eq!(faults(&file(&uncommented)), Vec::<String>::new());
        assert_eq!(sections.len(), 12);
    }

    #[cfg(all(feature = "kafka", feature = "cassandra"))]
    #[test]
    fn what_the_cluster_file_has_in_comments_is_valid_too() {
        let uncomment = |line: &str| {
            let key = line
                .strip_prefix("# ")
                .filter(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')));
            format!("{}\n", key.unwrap_or(line))
        };
        let text: String = include_str!("../../config/cluster.toml").lines().map(uncomment).collect();
        assert!(text.contains("\nproperties = {") && text.contains("\ntls = true"), "{text}");
        assert_eq!(faults(&file(&text)), Vec::<String>::new());
    }
}
