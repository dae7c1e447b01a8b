//! YAML as it is written is read back the same: by this crate and, with the feature `oracle`, by Kubernetes' own reader.
//!
//! `PODSHAPER_YAML_ORACLE` names the binary of `ci/go/yaml-oracle`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use podshaper_offline::yaml::{parse, to_string};
use proptest::prelude::*;
use serde_json::Value;

const WORDS: &str = ",~,y,No,on,TRUE,null,0,010,0x1F,0o7,1_000,1:30,1e3,.5,.inf,-.INF,.NaN,2001-01-01,\
    2001-12-14t21:59:43.10-05:00,<<,=,-,---,...,? a,a: b,a #b,!!str a";

fn words() -> impl Strategy<Value = String> {
    prop::sample::select(WORDS.split(',').collect::<Vec<_>>()).prop_map(str::to_owned)
}

/// Texts that a reader could take for something else.
fn texts() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        words(),
        "[ -~\n\t]{0,20}",
        "[-+.:_0-9a-fxoeEyYnNtTzZ ~]{1,8}",
        "(  |\n|\t|a|#|: |- |'|\"|\\\\|\u{85}|\u{feff}|\u{1F600}){0,8}",
        "k{990,1030}",
    ]
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        texts().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((texts(), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn written_value_reads_the_same(value in values()) {
        let text = to_string(&value);
        prop_assert_eq!(parse(&text).map_err(|e| e.to_string()), Ok(value), "{}", text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", noise in "[\\[\\]{},:&*!|>%@\n \ta-c'\"#?-]{0,60}") {
        let _ = parse(&text);
        let _ = parse(&noise);
    }
}

#[cfg(feature = "oracle")]
mod oracle {
    use std::cell::RefCell;
    use std::env;
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Child, ChildStdout, Command, Stdio};

    use proptest::test_runner::{Config, TestRunner};
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        Config { cases: 10_000, failure_persistence: None, ..Config::default() }
    }

    struct Oracle {
        process: Child,
        answers: BufReader<ChildStdout>,
    }

    #[derive(Deserialize)]
    struct Answer {
        value: Option<Value>,
        error: Option<String>,
    }

    impl Oracle {
        fn start() -> Self {
            let program = env::var_os("PODSHAPER_YAML_ORACLE")
                .expect("PODSHAPER_YAML_ORACLE must name the binary of ci/go/yaml-oracle");
            let mut process =
                Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let answers = BufReader::new(process.stdout.take().unwrap());
            Self { process, answers }
        }

        fn read(&mut self, document: &str) -> Result<Value, String> {
            writeln!(self.process.stdin.as_mut().unwrap(), "{}", json!(document)).unwrap();
            let mut line = String::new();
            self.answers.read_line(&mut line).unwrap();
            let answer: Answer = serde_json::from_str(&line).unwrap();
            answer.error.map_or(Ok(answer.value.unwrap_or_default()), Err)
        }
    }

    /// Go writes a float without a fraction as an integer.
    fn same(ours: &Value, go: &Value) -> bool {
        match (ours, go) {
            (Value::Number(ours), Value::Number(go)) if ours.is_f64() => ours.as_f64() == go.as_f64(),
            (Value::Array(ours), Value::Array(go)) => {
                ours.len() == go.len() && ours.iter().zip(go).all(|(ours, go)| same(ours, go))
            }
            (Value::Object(ours), Value::Object(go)) => {
                ours.len() == go.len()
                    && ours.iter().all(|(key, ours)| go.get(key).is_some_and(|go| same(ours, go)))
            }
            (ours, go) => ours == go,
        }
    }

    #[test]
    fn kubectl_reads_what_is_written() {
        let oracle = RefCell::new(Oracle::start());
        let property = |value| {
            let text = to_string(&value);
            let go = oracle.borrow_mut().read(&text);
            prop_assert!(go.as_ref().is_ok_and(|go| same(&value, go)), "{text}\nGo: {go:?}");
            Ok(())
        };
        TestRunner::new(config()).run(&values(), property).unwrap();
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubectl() {
        let plain = prop_oneof![
            words(),
            "[-+.:_0-9a-fxoeEyYnNtTzZ~]{1,8}",
            "[-+.]?[0-9acdefxo_]{1,8}",
            "0[xo]?[0-9a-f_]{1,16}",
            "[0-9]{15,25}",
            "[a-zA-Z0-9._:+-]{1,6}",
        ];
        // Whims of Go's: 0b-1 is minus one, and of _ in a fraction.
        let plain = plain.prop_filter("a whim", |text| {
            !(text.contains("0b") || text.starts_with('.') && text.contains('_'))
        });
        let oracle = RefCell::new(Oracle::start());
        let property = |text: String| {
            let document = format!("a: {text}\n");
            let ours = parse(&document);
            let go = oracle.borrow_mut().read(&document);
            let agree = match (&ours, &go) {
                (Ok(ours), Ok(go)) => same(ours, go),
                (ours, go) => ours.is_err() && go.is_err(),
            };
            prop_assert!(agree, "{document}{ours:?}\nGo: {go:?}");
            Ok(())
        };
        TestRunner::new(config()).run(&plain, property).unwrap();
    }
}
