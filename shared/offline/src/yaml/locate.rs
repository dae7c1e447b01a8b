//! Where in a text something stands.

use granit_parser::{Event, Options, Parser};

/// A map or a list that is being read, and where in it.
enum Frame {
    /// The key whose value comes next, or is being read.
    Map(Option<String>),
    /// The index of the item that comes next, or is being read.
    List(usize),
}

/// The line (from 1) on which what these keys lead to stands, or as much of the way as is there; items of lists are named by
/// their index. None where the first key isn't there, or the text can't be read so far.
pub fn line_of(text: &str, path: &[String]) -> Option<usize> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut parser = Parser::new_from_str_with_options(text, options);
    let (mut frames, mut best) = (Vec::new(), (0, None));
    while let Some(Ok((event, at))) = parser.next_event() {
        let ends = match &event {
            Event::Scalar(key, ..) if matches!(frames.last(), Some(Frame::Map(None))) => {
                set_key(&mut frames, key);
                look(&frames, path, at.start.line(), &mut best);
                continue;
            }
            Event::Scalar(..) | Event::Alias(..) => {
                look(&frames, path, at.start.line(), &mut best);
                true
            }
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                look(&frames, path, at.start.line(), &mut best);
                let map = matches!(event, Event::MappingStart(..));
                frames.push(if map { Frame::Map(None) } else { Frame::List(0) });
                false
            }
            Event::MappingEnd | Event::SequenceEnd => {
                frames.pop();
                true
            }
            _ => false,
        };
        if ends {
            match frames.last_mut() {
                Some(Frame::Map(key)) => *key = None,
                Some(Frame::List(index)) => *index += 1,
                None => {}
            }
        }
    }
    best.1
}

fn set_key(frames: &mut [Frame], key: &str) {
    if let Some(Frame::Map(own)) = frames.last_mut() {
        *own = Some(key.to_owned());
    }
}

/// Keeps the line if this is further on the way than anything before.
fn look(frames: &[Frame], path: &[String], line: usize, best: &mut (usize, Option<usize>)) {
    let on_the_way = frames.iter().zip(path).all(|(frame, step)| match frame {
        Frame::Map(key) => key.as_deref() == Some(step),
        Frame::List(index) => index.to_string() == *step,
    });
    if on_the_way && frames.len() <= path.len() && frames.len() > best.0 {
        *best = (frames.len(), Some(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "# a comment\na: 1\nb:\n  x.y/z:\n  - one\n  - {k: v,\n     l: w}\nc: [1,\n 2]\n";
        for (path, line) in [
            (&["a"][..], Some(2)),
            (&["b", "x.y/z", "1", "l"], Some(7)),
            (&["b", "x.y/z", "1", "missing"], Some(6)),
            (&["b", "x.y/z", "0"], Some(5)),
            (&["c", "1"], Some(9)),
            (&["d"], None),
            (&[], None),
        ] {
            let path: Vec<_> = path.iter().map(|&step| step.to_owned()).collect();
            assert_eq!(line_of(text, &path), line, "{path:?}");
        }
        assert_eq!(line_of("a: [", &["a".to_owned()]), Some(1));
    }
}
