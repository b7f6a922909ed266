//! The table against a map, and its size.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::layout::Region;

fn place(number: u32) -> Place {
    Place::new(Region::new(1 + number % 7).unwrap(), number).unwrap()
}

fn entry(number: u32) -> Entry {
    Entry {
        place: place(number),
        checksum: number.rotate_left(9),
        used: 1,
        flags: Flags::default(),
    }
}

fn digest(number: u32) -> Digest {
    let functions = [DigestFunction::Sha256, DigestFunction::Md5, DigestFunction::Sha512];
    Digest::of(functions[number as usize % 3], &number.to_le_bytes())
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u32),
    Remove(u32),
    Touch(u32, u32),
    Relocate(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..200u32;
    prop_oneof![
        4 => number.clone().prop_map(Step::Insert),
        3 => number.clone().prop_map(Step::Remove),
        1 => (number.clone(), 0..50u32).prop_map(|(number, used)| Step::Touch(number, used)),
        1 => (number.clone(), number).prop_map(|(number, to)| Step::Relocate(number, to)),
    ]
}

proptest! {
    #[test]
    fn the_index_is_a_map(steps in proptest::collection::vec(step(), 0..600), secret in any::<[u8; 16]>()) {
        let index = Index::new(secret);
        let mut model: HashMap<u32, Entry> = HashMap::new();
        for step in steps {
            match step {
                Step::Insert(number) => {
                    let before = index.insert(&digest(number), entry(number)).unwrap();
                    prop_assert_eq!(before, model.insert(number, entry(number)));
                }
                Step::Remove(number) => {
                    let at = model.get(&number).map_or(place(0), |entry| entry.place);
                    prop_assert_eq!(index.remove_if(&digest(number), at, |_| false), None);
                    prop_assert_eq!(index.remove_if(&digest(number), at, |_| true), model.remove(&number));
                }
                Step::Touch(number, used) => {
                    if let Some(entry) = model.get_mut(&number).filter(|entry| entry.used < used) {
                        entry.used = used;
                        entry.flags = entry.flags.with(Flags::TOUCHED);
                    }
                    prop_assert_eq!(index.touch(&digest(number), used), model.get(&number).copied());
                }
                Step::Relocate(number, to) => {
                    let from = model.get(&number).map(|entry| entry.place);
                    let moved = index.relocate(&digest(number), from.unwrap_or(place(1)), place(to));
                    prop_assert_eq!(moved, from.is_some());
                    if let Some(entry) = model.get_mut(&number) {
                        entry.place = place(to);
                    }
                }
            }
            prop_assert_eq!(index.blobs(), model.len() as u64);
        }
        for number in 0..200 {
            prop_assert_eq!(index.get(&digest(number)), model.get(&number).copied());
        }
        // Of several functions, and each twice.
        let digests: Vec<Digest> = (0..200).chain(0..200).map(digest).collect();
        let absent: Vec<Digest> = (0..200).filter(|number| !model.contains_key(number)).map(digest).collect();
        prop_assert_eq!(index.absent(&digests, 1000), absent);
        for (number, entry) in &mut model {
            (entry.used, entry.flags) = (1000, entry.flags.with(Flags::TOUCHED));
            prop_assert_eq!(index.get(&digest(*number)), Some(*entry));
        }
        let mut seen = HashMap::new();
        index.scan(|scanned| assert!(seen.insert(scanned.digest, scanned.entry).is_none()));
        let expected: HashMap<Digest, Entry> = model.into_iter().map(|(number, entry)| (digest(number), entry)).collect();
        prop_assert_eq!(seen, expected);
    }
}
