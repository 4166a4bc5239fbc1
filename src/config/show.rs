//! The effective configuration as TOML, with where each value is from and without secrets.

use super::{Config, Effective};

/// What stands for a secret.
const MASK: &str = "********";

impl Effective {
    /// TOML that gives the same configuration again, secrets aside.
    pub fn to_toml(&self) -> String {
        let text = toml::to_string(&masked(&self.config)).expect("text and numbers always have a TOML form");
        let mut section = String::new();
        let mut shown = String::new();
        for line in text.lines() {
            shown.push_str(line);
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = format!("{name}.");
            } else if let Some((key, _)) = line.split_once(" = ")
                && let Some(origin) = self.origin(&format!("{section}{key}"))
            {
                shown.push_str("  # ");
                shown.push_str(&crate::logging::escape_line(origin));
            }
            shown.push('\n');
        }
        shown
    }
}

/// A copy in which what may be a secret is masked. No key of Tidemark's own holds one, only files that do.
fn masked(config: &Config) -> Config {
    let mut config = config.clone();
    for (key, value) in &mut config.kafka.properties.0 {
        if is_secret(key) {
            MASK.clone_into(value);
        }
    }
    config
}

/// Whether a librdkafka key may hold a secret itself, not the place of one.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let names_a_place = ["file", "location", "url", "path"].iter().any(|end| key.ends_with(end));
    !names_a_place
        && ["password", "passwd", "secret", "token", "pem", "credential", "oauthbearer.config"]
            .iter()
            .any(|word| key.contains(word))
}

#[cfg(test)]
mod tests {
    use super::super::{Layers, Overrides};
    use super::*;

    fn effective(text: &str) -> Effective {
        let overrides = Overrides { workers: Some(5), ..Overrides::default() };
        Effective::of(&Layers { file: Some(("t.toml".into(), text.to_owned())), overrides, ..Layers::default() })
    }

    #[test]
    fn what_is_shown_gives_the_same_configuration_again() {
        let shown = effective("[time]\nlateness = \"20m\"\n[http.limits]\nconnections = 7\n").to_toml();
        assert!(shown.contains("lateness = \"20m\"  # t.toml:2\n"), "{shown}");
        assert!(shown.contains("connections = 7  # t.toml:4\n"), "{shown}");
        assert!(shown.contains("workers = 5  # --workers\n"), "{shown}");
        assert!(shown.contains("tick = \"100ms\"\n"), "{shown}");
        let again = effective(&shown);
        let expect = effective("[time]\nlateness = \"20m\"\n[http.limits]\nconnections = 7\n");
        assert_eq!(again.config, expect.config);
    }

    #[test]
    fn secrets_are_masked_and_their_places_are_not() {
        let text = r#"
            [kafka.properties]
            "sasl.username" = "shown-1"
            "sasl.password" = "canary-1"
            "ssl.key.password" = "canary-2"
            "ssl.key.pem" = "canary-3"
            "ssl.key.location" = "shown-2"
            "sasl.oauthbearer.client.secret" = "canary-4"
            "sasl.oauthbearer.token.endpoint.url" = "shown-3"
            [cassandra]
            password_file = "shown-4"
        "#;
        let shown = effective(text).to_toml();
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(shown.matches(MASK).count(), 4, "{shown}");
        for place in 1..=4 {
            assert!(shown.contains(&format!("shown-{place}")), "{shown}");
        }
    }
}
