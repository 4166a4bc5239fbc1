//! Batches of an arrangement that threads outside the workers may hold and read: differential's own spines hold theirs by `Rc`.

use std::{ops::Deref, sync::Arc};

use differential_dataflow::trace::implementations::{
    Vector,
    ord_neu::OrdValBatch,
    spine_fueled::{Merger, Spine, SpineBatch},
};
use timely::progress::frontier::AntichainRef;

/// A spine of ordered lists, as `OrdValSpine` is.
pub type SharedSpine<K, V, T, R> = Spine<Shared<OrdValBatch<Vector<((K, V), T, R)>>>>;

/// An immutable batch.
pub struct Shared<B>(Arc<B>);

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B> Deref for Shared<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}

impl<B> From<B> for Shared<B> {
    fn from(batch: B) -> Self {
        Self(Arc::new(batch))
    }
}

impl<B: SpineBatch> SpineBatch for Shared<B> {
    type Time = B::Time;
    type Merger = SharedMerger<B>;

    fn len(&self) -> usize {
        self.0.len()
    }
}

/// Merges what is shared into something new; readers keep what they hold.
pub struct SharedMerger<B: SpineBatch>(B::Merger);

impl<B: SpineBatch> Merger<Shared<B>> for SharedMerger<B> {
    fn new(one: &Shared<B>, other: &Shared<B>, since: AntichainRef<B::Time>) -> Self {
        Self(B::Merger::new(one, other, since))
    }

    fn work(&mut self, one: &Shared<B>, other: &Shared<B>, fuel: &mut isize) {
        self.0.work(one, other, fuel);
    }

    fn done(self) -> Option<Shared<B>> {
        self.0.done().map(Shared::from)
    }
}
