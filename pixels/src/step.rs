//! One step of Auto-PGD for one image.

use crate::{Walls, ball, clamp, length, signed};

/// The numbers of a step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// How far.
    pub size: f32,
    /// Weight of the new direction; the rest is the last step's.
    pub inertia: f32,
    /// Radius of the ball.
    pub epsilon: f32,
    /// The box.
    pub walls: Walls,
}

/// Where the image is, what it was, and which way the loss rises.
#[derive(Debug)]
pub struct Image<'a> {
    /// The clean image.
    pub x: &'a [f32],
    /// Now.
    pub at: &'a [f32],
    /// One step ago; becomes the next point.
    pub previous: &'a mut [f32],
    /// The gradient of the loss.
    pub gradient: &'a [f32],
}

/// In L-infinity.
pub fn linf(image: Image, step: &Step) {
    let Step { size, inertia, epsilon, walls } = *step;
    let Image { x, at, previous, gradient } = image;
    let others = x.iter().zip(at).zip(gradient);
    for (previous, ((&x, &at), &gradient)) in previous.iter_mut().zip(others) {
        let low = if x - epsilon > walls.low { x - epsilon } else { walls.low };
        let high = if x + epsilon < walls.high { x + epsilon } else { walls.high };
        let ahead = clamp(at + signed(size, gradient), low, high);
        let next = ((ahead - at) * inertia + at) + (at - *previous) * (1.0 - inertia);
        *previous = clamp(next, low, high);
    }
}

/// In L2; `delta` is scratch.
pub fn l2(image: Image, step: &Step, delta: &mut Vec<f32>) {
    let Step { size, inertia, epsilon, walls } = *step;
    let Image { x, at, previous, gradient } = image;
    let rate = size / (length(gradient) + 1e-12);
    delta.resize(x.len(), 0.0);
    for (delta, ((&x, &at), &gradient)) in delta.iter_mut().zip(x.iter().zip(at).zip(gradient)) {
        *delta = at + gradient * rate - x;
    }
    let pull = ball::pull(length(delta), epsilon);
    let others = x.iter().zip(at).zip(&*previous);
    for (delta, ((&x, &at), &previous)) in delta.iter_mut().zip(others) {
        let ahead = clamp(x + *delta * pull, walls.low, walls.high);
        let next = ((ahead - at) * inertia + at) + (at - previous) * (1.0 - inertia);
        *delta = next - x;
    }
    let pull = ball::pull(length(delta), epsilon);
    for (previous, (&x, &delta)) in previous.iter_mut().zip(x.iter().zip(&*delta)) {
        *previous = clamp(x + delta * pull, walls.low, walls.high);
    }
}
