//! The page that lists the examples, of which this crate has some.

use std::{fs, path::Path};

use crate::support::names;

#[test]
fn every_example_is_listed_and_what_is_listed_is_there() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = fs::read_to_string(examples.join("README.md")).unwrap();
    let linked: Vec<_> = page.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()).collect();
    for path in &linked {
        assert!(examples.join(path).exists(), "{path} is not there");
    }
    for folder in ["", "services/src/bin", "stores"] {
        let found = if examples.join(folder).is_dir() { names(&examples.join(folder)) } else { Vec::new() };
        for name in found.iter().filter(|name| name.ends_with(".rs") || name.ends_with(".py")) {
            let path = Path::new(folder).join(name);
            assert!(linked.iter().any(|linked| Path::new(linked) == path), "{} is not listed", path.display());
        }
    }
}
