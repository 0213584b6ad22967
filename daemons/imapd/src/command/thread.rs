//! Threading (RFC 5256 3). Nothing here recurses, since chains of references may be as long as mailboxes are.

use std::collections::HashMap;

/// What is known of a message.
#[derive(Clone, Debug, Default)]
pub(crate) struct Threaded {
    /// What is shown for it: a UID or a sequence number.
    pub(crate) number: u32,
    /// When it was sent, seconds since 1970.
    pub(crate) sent: i64,
    /// Base subject, in upper case.
    pub(crate) subject: String,
    /// The subject has the sign of a reply or forward.
    pub(crate) is_reply: bool,
    pub(crate) id: Option<String>,
    /// The messages it answers, oldest first.
    pub(crate) references: Vec<String>,
}

/// Ancestors looked at for a loop; beyond it a link is not made.
const ANCESTORS_MAX: usize = 2000;

#[derive(Debug, Default)]
struct Node {
    parent: Option<usize>,
    children: Vec<usize>,
    message: Option<usize>,
}

/// A forest of messages; nodes without one stand for messages that are not there.
#[derive(Debug, Default)]
pub(crate) struct Forest {
    nodes: Vec<Node>,
    roots: Vec<usize>,
}

impl Forest {
    fn children(&self, node: usize) -> &[usize] {
        self.nodes
            .get(node)
            .map_or(&[], |node| node.children.as_slice())
    }

    fn add(&mut self, message: Option<usize>) -> usize {
        self.nodes.push(Node {
            message,
            ..Node::default()
        });
        self.nodes.len() - 1
    }

    fn message(&self, node: usize) -> Option<usize> {
        self.nodes.get(node).and_then(|node| node.message)
    }

    /// Whether `node` is `ancestor` or below it; true also when that would take too long to tell.
    fn is_below(&self, node: usize, ancestor: usize) -> bool {
        let mut at = Some(node);
        for _ in 0..ANCESTORS_MAX {
            match at {
                None => return false,
                Some(here) if here == ancestor => return true,
                Some(here) => at = self.nodes.get(here).and_then(|node| node.parent),
            }
        }
        true
    }

    fn link(&mut self, parent: usize, child: usize) {
        if self.is_below(parent, child) {
            return;
        }
        if let Some(node) = self.nodes.get_mut(child) {
            node.parent = Some(parent);
        }
    }

    /// Nodes so that children stand before their parents.
    fn bottom_up(&self) -> Vec<usize> {
        let mut order = Vec::with_capacity(self.nodes.len());
        let mut stack: Vec<usize> = self.roots.clone();
        while let Some(node) = stack.pop() {
            order.push(node);
            stack.extend_from_slice(self.children(node));
        }
        order.reverse();
        order
    }

    /// REFERENCES, steps 1 to 6.
    pub(crate) fn by_references(messages: &[Threaded]) -> Self {
        let mut forest = Self::linked(messages);
        forest.prune();
        forest.sort(messages);
        forest.join_subjects(messages);
        forest.sort(messages);
        forest
    }

    /// Steps 1 and 2: who answers whom.
    fn linked(messages: &[Threaded]) -> Self {
        let mut forest = Self::default();
        let mut by_id: HashMap<&str, usize> = HashMap::new();
        for (at, message) in messages.iter().enumerate() {
            let known = message.id.as_deref().and_then(|id| by_id.get(id).copied());
            let node = match known {
                // Two messages of one id: the later one stands for itself.
                Some(node) if forest.message(node).is_some() => forest.add(Some(at)),
                Some(node) => {
                    if let Some(node) = forest.nodes.get_mut(node) {
                        node.message = Some(at);
                    }
                    node
                }
                None => {
                    let node = forest.add(Some(at));
                    if let Some(id) = message.id.as_deref() {
                        by_id.insert(id, node);
                    }
                    node
                }
            };
            let mut before = None;
            for reference in &message.references {
                let next = match by_id.get(reference.as_str()) {
                    Some(node) => *node,
                    None => {
                        let made = forest.add(None);
                        by_id.insert(reference, made);
                        made
                    }
                };
                if let Some(before) = before
                    && forest
                        .nodes
                        .get(next)
                        .is_some_and(|node| node.parent.is_none())
                {
                    forest.link(before, next);
                }
                before = Some(next);
            }
            // Its own references are truer than what others say of it.
            if let Some(node) = forest.nodes.get_mut(node) {
                node.parent = None;
            }
            if let Some(before) = before {
                forest.link(before, node);
            }
        }
        for node in 0..forest.nodes.len() {
            match forest.nodes.get(node).and_then(|node| node.parent) {
                None => forest.roots.push(node),
                Some(parent) => {
                    if let Some(parent) = forest.nodes.get_mut(parent) {
                        parent.children.push(node);
                    }
                }
            }
        }
        forest
    }

    /// Step 3: nodes without a message go, and what is below them takes their place; at the top only if it is one.
    fn prune(&mut self) {
        let roots: std::collections::HashSet<usize> = self.roots.iter().copied().collect();
        for node in self.bottom_up() {
            let mut kept = Vec::new();
            for child in self.children(node).to_vec() {
                if self.message(child).is_some() {
                    kept.push(child);
                } else {
                    kept.append(&mut self.take_children(child));
                }
            }
            if let Some(node) = self.nodes.get_mut(node) {
                node.children = kept;
            }
        }
        let mut left = Vec::with_capacity(roots.len());
        for root in std::mem::take(&mut self.roots) {
            if self.message(root).is_some() || self.children(root).len() > 1 {
                left.push(root);
            } else {
                left.append(&mut self.take_children(root));
            }
        }
        self.roots = left;
    }

    fn take_children(&mut self, node: usize) -> Vec<usize> {
        self.nodes
            .get_mut(node)
            .map(|node| std::mem::take(&mut node.children))
            .unwrap_or_default()
    }

    /// Steps 4 and 6: brothers by the date they were sent; a node without a message has its first child's.
    fn sort(&mut self, messages: &[Threaded]) {
        let mut dates: Vec<(i64, usize)> = vec![(i64::MAX, usize::MAX); self.nodes.len()];
        for node in self.bottom_up() {
            let mut children = self.take_children(node);
            children.sort_by_key(|child| dates.get(*child).copied());
            let first = children
                .first()
                .and_then(|child| dates.get(*child).copied());
            let own = self
                .message(node)
                .and_then(|at| messages.get(at).map(|message| (message.sent, at)));
            if let (Some(date), Some(entry)) = (own.or(first), dates.get_mut(node)) {
                *entry = date;
            }
            if let Some(node) = self.nodes.get_mut(node) {
                node.children = children;
            }
        }
        self.roots.sort_by_key(|root| dates.get(*root).copied());
    }

    /// The message that a root is known by: its own, or its first child's.
    fn face<'m>(&self, root: usize, messages: &'m [Threaded]) -> Option<&'m Threaded> {
        let at = self.message(root).or_else(|| {
            let first = self.children(root).first();
            first.and_then(|child| self.message(*child))
        });
        at.and_then(|at| messages.get(at))
    }

    /// Step 5: roots of one subject come together.
    fn join_subjects(&mut self, messages: &[Threaded]) {
        let mut table: HashMap<&str, usize> = HashMap::new();
        for root in self.roots.clone() {
            let Some(face) = self
                .face(root, messages)
                .filter(|face| !face.subject.is_empty())
            else {
                continue;
            };
            let better = match table.get(face.subject.as_str()) {
                None => true,
                Some(known) => {
                    let known_dummy = self.message(*known).is_none();
                    let known_reply = self
                        .face(*known, messages)
                        .is_some_and(|face| face.is_reply);
                    !known_dummy && (self.message(root).is_none() || known_reply && !face.is_reply)
                }
            };
            if better {
                table.insert(&face.subject, root);
            }
        }
        let mut gone = std::collections::HashSet::new();
        for root in self.roots.clone() {
            let Some(face) = self
                .face(root, messages)
                .filter(|face| !face.subject.is_empty())
            else {
                continue;
            };
            let Some(known) = table
                .get(face.subject.as_str())
                .copied()
                .filter(|known| *known != root)
            else {
                continue;
            };
            let (dummy, known_dummy) =
                (self.message(root).is_none(), self.message(known).is_none());
            let known_reply = self.face(known, messages).is_some_and(|face| face.is_reply);
            gone.insert(root);
            if dummy && known_dummy {
                let mut children = self.take_children(root);
                self.adopt(known, &mut children);
            } else if known_dummy || face.is_reply && !known_reply {
                self.adopt(known, &mut vec![root]);
            } else {
                let both = self.add(None);
                gone.insert(known);
                self.adopt(both, &mut vec![known, root]);
                table.insert(&face.subject, both);
                self.roots.push(both);
            }
        }
        self.roots.retain(|root| !gone.contains(root));
    }

    fn adopt(&mut self, parent: usize, children: &mut Vec<usize>) {
        if let Some(parent) = self.nodes.get_mut(parent) {
            parent.children.append(children);
        }
    }

    /// ORDEREDSUBJECT: threads by subject, all others below the first.
    pub(crate) fn by_subject(messages: &[Threaded]) -> Self {
        let mut forest = Self::default();
        let mut order: Vec<usize> = (0..messages.len()).collect();
        order.sort_by_key(|at| {
            messages
                .get(*at)
                .map(|message| (&message.subject, message.sent, *at))
        });
        let mut last: Option<(usize, &str)> = None;
        for at in order {
            let Some(message) = messages.get(at) else {
                continue;
            };
            let node = forest.add(Some(at));
            match last {
                Some((root, subject)) if subject == message.subject => {
                    forest.adopt(root, &mut vec![node]);
                }
                _ => {
                    forest.roots.push(node);
                    last = Some((node, &message.subject));
                }
            }
        }
        forest.sort(messages);
        forest
    }

    /// The threads as THREAD's response has them (RFC 5256 4).
    pub(crate) fn written(&self, messages: &[Threaded]) -> String {
        enum Step {
            Node(usize),
            Text(&'static str),
        }
        let mut out = String::new();
        for root in &self.roots {
            let mut steps = vec![Step::Text(")"), Step::Node(*root), Step::Text("(")];
            while let Some(step) = steps.pop() {
                let node = match step {
                    Step::Text(text) => {
                        out.push_str(text);
                        continue;
                    }
                    Step::Node(node) => node,
                };
                let message = self.message(node).and_then(|at| messages.get(at));
                if let Some(message) = message {
                    out.push_str(&message.number.to_string());
                }
                let children = self.children(node);
                let gap = if message.is_some() && !children.is_empty() {
                    " "
                } else {
                    ""
                };
                match children {
                    [only] => steps.push(Step::Node(*only)),
                    several => {
                        for child in several.iter().rev() {
                            steps.extend([Step::Text(")"), Step::Node(*child), Step::Text("(")]);
                        }
                    }
                }
                out.push_str(gap);
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u32, subject: &str, id: &str, references: &[&str]) -> Threaded {
        let bare = subject.strip_prefix("Re: ");
        Threaded {
            number,
            sent: i64::from(number),
            subject: bare.unwrap_or(subject).to_uppercase(),
            is_reply: bare.is_some(),
            id: (!id.is_empty()).then(|| id.to_owned()),
            references: references.iter().map(|&one| one.to_owned()).collect(),
        }
    }

    fn references(messages: &[Threaded]) -> String {
        Forest::by_references(messages).written(messages)
    }

    #[test]
    fn answers_stand_below_what_they_answer() {
        let all = [
            message(1, "a", "1", &[]),
            message(2, "Re: a", "2", &["1"]),
            message(3, "Re: a", "3", &["1", "2"]),
            message(4, "Re: a", "4", &["1"]),
            message(5, "other", "5", &[]),
        ];
        assert_eq!(references(&all), "(1 (2 3)(4))(5)");
    }

    #[test]
    fn what_is_missing_holds_its_answers_together() {
        let all = [
            message(1, "Re: x", "1", &["gone"]),
            message(2, "Re: y", "2", &["gone"]),
        ];
        assert_eq!(references(&all), "((1)(2))");
        let all = [message(1, "Re: x", "1", &["gone", "gone2"])];
        assert_eq!(references(&all), "(1)");
    }

    #[test]
    fn one_subject_is_one_thread() {
        let all = [
            message(1, "hello", "1", &[]),
            message(2, "Re: hello", "2", &[]),
            message(3, "hello", "3", &[]),
        ];
        assert_eq!(references(&all), "((1 2)(3))");
    }

    #[test]
    fn loops_and_twins_and_long_chains_end() {
        let all = [
            message(1, "a", "1", &["2"]),
            message(2, "b", "2", &["1"]),
            message(3, "c", "1", &[]),
            message(4, "d", "4", &["4"]),
        ];
        let written = references(&all);
        for number in 1..=4 {
            assert_eq!(written.matches(&number.to_string()).count(), 1, "{written}");
        }
        let ids: Vec<String> = (0..20_000).map(|at| format!("m{at}")).collect();
        let mut chain = Vec::new();
        for at in 0..20_000_usize {
            let before = at
                .checked_sub(1)
                .and_then(|at| ids.get(at).map(String::as_str));
            let own = ids.get(at).map_or("", String::as_str);
            chain.push(message(at as u32 + 1, "", own, before.as_slice()));
        }
        let written = references(&chain);
        assert!(
            written.starts_with("(1 2 3 ") && written.matches(char::is_whitespace).count() > 1900
        );
    }

    #[test]
    fn ordered_subject_is_the_rfcs_example_in_small() {
        let all = [
            message(1, "b", "", &[]),
            message(2, "a", "", &[]),
            message(3, "Re: b", "", &[]),
            message(4, "Re: b", "", &[]),
            message(5, "Re: a", "", &[]),
        ];
        let forest = Forest::by_subject(&all);
        assert_eq!(forest.written(&all), "(1 (3)(4))(2 5)");
    }
}
