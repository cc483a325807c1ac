//! Near duplicates: images of one set that are closer to an image of another than chance explains.
//!
//! The measure is that of Carlini et al. 2023 (*Extracting Training Data from Diffusion Models*,
//! section 5.1): the distance to the nearest image, divided by half the mean distance to the fifty
//! nearest ones. Below one, the nearest image stands out from its surroundings. Mirror images
//! count: training mirrors, so a memorised image may come out either way round.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::{
    data::Dataset,
    error::{Error, Result},
    progress::Progress,
};

/// Neighbours whose mean distance says what is usual around an image.
const NEIGHBOURS: i64 = 50;
/// Their share that a duplicate's distance stays below.
const ALPHA: f64 = 0.5;
/// Neighbours are found among images brought to this edge length and measured in full.
const COARSE: i64 = 16;
/// Images of the larger set that are compared at once.
const CHUNK: usize = 8192;
/// Queries that are compared with them at once.
const ROWS: i64 = 2048;
/// Queries that are measured in full at once.
const MEASURED: i64 = 32;
/// Pairs that a report shows.
const SHOWN: usize = 12;

/// An image and the one of another set that is nearest to it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Twin {
    /// Its index.
    pub image: usize,
    /// Index of the nearest image of the other set.
    pub nearest: usize,
    /// Root mean square of the differences of their pixels, in [0, 1].
    pub distance: f64,
    /// That distance over half the mean of the fifty nearest: suspicious below 1.
    pub ratio: f64,
    /// Whether one of the two had to be mirrored.
    pub mirrored: bool,
}

/// What was found when the images of one set were sought in another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Duplicates {
    /// Whose images were sought.
    pub of: String,
    /// In which set.
    pub among: String,
    /// How many images were sought.
    pub images: u64,
    /// How many have a ratio below 1.
    pub suspects: u64,
    /// The pairs of least ratio, the most suspicious first.
    pub closest: Vec<Twin>,
}

/// Seeks the images of `of` in `among`.
///
/// # Errors
/// If the images differ in size, or `progress` asks to stop.
pub fn seek(
    (of, queries): (&str, &Dataset),
    (among, real): (&str, &Dataset),
    progress: &dyn Progress,
) -> Result<Duplicates> {
    if queries.size != real.size {
        return Err(Error::input(format!(
            "{of}: images of {:?} pixels cannot be sought among those of {among}, {:?}",
            queries.size, real.size
        )));
    }
    let mut twins = twins(queries, real, progress)?;
    let suspects = twins.iter().filter(|twin| twin.ratio < 1.0).count() as u64;
    let images = twins.len() as u64;
    twins.sort_by(|a, b| a.ratio.total_cmp(&b.ratio).then(a.image.cmp(&b.image)));
    twins.truncate(SHOWN);
    Ok(Duplicates { of: of.to_owned(), among: among.to_owned(), images, suspects, closest: twins })
}

/// The nearest image of `real` for every image of `queries`, in order.
fn twins(queries: &Dataset, real: &Dataset, progress: &dyn Progress) -> Result<Vec<Twin>> {
    let _guard = tch::no_grad_guard();
    let m = queries.len();
    progress.begin("near duplicates", (2 * m) as u64, "image");
    let all: Vec<usize> = (0..m).collect();
    let rows: Vec<(Tensor, Tensor)> = all
        .chunks(ROWS as usize)
        .map(|indices| {
            let images = queries.images(indices, Device::Cpu);
            (coarse(&images), coarse(&images.flip([3])))
        })
        .collect();
    let mut found: Vec<[Option<Nearest>; 2]> = rows.iter().map(|_| [None, None]).collect();
    let chunks = real.len().div_ceil(CHUNK);
    for chunk in 0..chunks {
        let indices: Vec<usize> = (chunk * CHUNK..((chunk + 1) * CHUNK).min(real.len())).collect();
        let own = coarse(&real.images(&indices, Device::Cpu));
        for (rows, found) in rows.iter().zip(&mut found) {
            if progress.stopping() {
                return Err(Error::Interrupted);
            }
            for (rows, found) in [&rows.0, &rows.1].into_iter().zip(found) {
                *found = Some(Nearest::merged(found.take(), rows, &own, indices[0] as i64));
            }
        }
        progress.at((m * (chunk + 1) / chunks) as u64, "");
    }
    let mut twins = Vec::with_capacity(m);
    for (block, found) in found.iter().enumerate() {
        let [Some(plain), Some(turned)] = found else {
            return Err(Error::input("there are no images to compare with".to_owned()));
        };
        let first = block * ROWS as usize;
        let count = plain.indices.size()[0];
        for start in (0..count).step_by(MEASURED as usize) {
            if progress.stopping() {
                return Err(Error::Interrupted);
            }
            let n = MEASURED.min(count - start);
            let indices: Vec<usize> = (0..n as usize).map(|i| first + start as usize + i).collect();
            let images = queries.images(&indices, Device::Cpu);
            let plain = measured(&images, &plain.indices.narrow(0, start, n), real);
            let turned = measured(&images.flip([3]), &turned.indices.narrow(0, start, n), real);
            for ((image, plain), turned) in indices.into_iter().zip(plain).zip(turned) {
                let mirrored = turned.distance < plain.distance;
                let nearer = if mirrored { turned } else { plain };
                twins.push(Twin { image, mirrored, ..nearer });
            }
            progress.at((m + twins.len()) as u64, "");
        }
    }
    Ok(twins)
}

/// `[n,d]`: images `[n,3,h,w]` brought to a small edge length.
fn coarse(images: &Tensor) -> Tensor {
    let (n, _, h, w) = images.size4().expect("images are [n,3,h,w]");
    images.adaptive_avg_pool2d([h.min(COARSE), w.min(COARSE)]).view([n, -1])
}

/// The nearest images so far: squared distances and indices, `[m,k]`, nearest first.
struct Nearest {
    squares: Tensor,
    indices: Tensor,
}

impl Nearest {
    /// `found` with the images `own` `[n,d]`, which begin at index `first`.
    fn merged(found: Option<Self>, rows: &Tensor, own: &Tensor, first: i64) -> Self {
        let norms = |x: &Tensor| x.square().sum_dim_intlist([1].as_slice(), true, Kind::Float);
        let products = rows.matmul(&own.tr());
        let squares = products * -2.0 + norms(rows) + norms(own).tr(); // [m,n]
        let few = NEIGHBOURS.min(own.size()[0]);
        let (squares, indices) = squares.topk(few, 1, false, true);
        let indices = indices + first;
        let Some(found) = found else { return Self { squares, indices } };
        let squares = Tensor::cat(&[found.squares, squares], 1);
        let indices = Tensor::cat(&[found.indices, indices], 1);
        let (squares, places) = squares.topk(NEIGHBOURS.min(squares.size()[1]), 1, false, true);
        Self { squares, indices: indices.gather(1, &places, false) }
    }
}

/// Exact distances of `images` `[m,3,h,w]` to their candidates `[m,k]` among `real`.
fn measured(images: &Tensor, candidates: &Tensor, real: &Dataset) -> Vec<Twin> {
    let (m, k) = candidates.size2().expect("[m,k]");
    let flat: Vec<i64> = candidates.contiguous().view([-1]).try_into().expect("indices");
    let indices: Vec<usize> = flat.iter().map(|&index| index as usize).collect();
    let near = real.images(&indices, Device::Cpu).view([m, k, -1]);
    let squares =
        (near - images.view([m, 1, -1])).square().mean_dim([2].as_slice(), false, Kind::Double);
    let distances: Vec<f64> = squares.sqrt().view([-1]).try_into().expect("distances");
    distances
        .chunks_exact(k as usize)
        .zip(indices.chunks_exact(k as usize))
        .map(|(distances, indices)| {
            let (at, &distance) = distances
                .iter()
                .enumerate()
                .min_by(|a, b| a.1.total_cmp(b.1))
                .expect("at least one neighbour");
            let usual = ALPHA * distances.iter().sum::<f64>() / k as f64;
            let ratio = if distance == 0.0 { 0.0 } else { distance / usual };
            Twin { image: 0, nearest: indices[at], distance, ratio, mirrored: false }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data::{Layout, Pixels, spec::Split, synthetic},
        progress::Silent,
    };

    #[test]
    fn planted_copies_are_found_and_others_are_not() {
        let real = synthetic::draw(Split::Train, 0, 300, 32);
        let queries = synthetic::draw(Split::Test, 0, 40, 32);
        let size = queries.image_bytes();
        let chw = |data: &Dataset, index| {
            let mut image = vec![0; size];
            data.copy_chw(index, &mut image);
            image
        };
        let image = |index| match index {
            // A slightly noisy copy of 123.
            7 => {
                let noisy = |(at, byte): (usize, u8)| byte.saturating_add((at % 3) as u8);
                chw(&real, 123).into_iter().enumerate().map(noisy).collect()
            }
            // The mirror image of 250.
            20 => {
                let mut turned = chw(&real, 250);
                turned.chunks_exact_mut(32).for_each(<[u8]>::reverse);
                turned
            }
            other => chw(&queries, other),
        };
        let pixels = (0..40).flat_map(image).collect();
        let planted = Dataset { layout: Layout::Chw, pixels: Pixels::Owned(pixels), ..queries };
        let found = seek(("planted", &planted), ("train", &real), &Silent).unwrap();
        assert_eq!(found.images, 40);
        let first: Vec<_> =
            found.closest[..2].iter().map(|t| (t.image, t.nearest, t.mirrored)).collect();
        assert_eq!(first, [(20, 250, true), (7, 123, false)]);
        assert_eq!(found.closest[0].distance, 0.0);
        assert!(found.closest[1].distance < 2.0 / 255.0);
        assert!(found.closest[1].ratio < 0.5, "{:?}", found.closest);
    }

    #[test]
    fn distances_are_those_of_all_pairs() {
        let real = synthetic::draw(Split::Train, 0, 60, 16);
        let queries = synthetic::draw(Split::Test, 0, 9, 16);
        let found = twins(&queries, &real, &Silent).unwrap();
        let flat = |data: &Dataset| {
            let indices: Vec<usize> = (0..data.len()).collect();
            data.images(&indices, Device::Cpu)
        };
        let (a, b) = (flat(&queries), flat(&real));
        let distance = |x: &Tensor| {
            let x = x.view([9, 1, -1]) - b.view([1, 60, -1]);
            x.square().mean_dim([2].as_slice(), false, Kind::Double).sqrt()
        };
        let least = distance(&a).minimum(&distance(&a.flip([3]))).amin([1], false);
        let least: Vec<f64> = least.try_into().unwrap();
        for (twin, least) in found.iter().zip(least) {
            assert!((twin.distance - least).abs() < 1e-6, "{twin:?} {least}");
        }
    }
}
