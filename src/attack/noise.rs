//! Where an attack's random numbers come from.

use std::sync::MutexGuard;

use tch::{Device, Kind, Tensor};

use super::{Batch, Mode, Spec};
use crate::{
    device::upload,
    rng::{Stream, torch_turn},
};

/// The source of one attack call.
#[derive(Debug)]
pub(crate) enum Noise {
    /// torch's CPU generator, seeded when the call began; one draw serves the whole batch.
    Shared(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>),
    /// One stream for each example of the batch.
    Own(Vec<Stream>),
}

impl Noise {
    /// The source that `spec.mode` asks for, at its beginning.
    pub(crate) fn begin(spec: &Spec, batch: &Batch) -> Self {
        match spec.mode {
            Mode::Reference => {
                let turn = torch_turn();
                tch::manual_seed(spec.seed as i64);
                Self::Shared(turn)
            }
            Mode::Strict => {
                let name = format!("{:?}", spec.kind);
                let stream = |of: &u64| Stream::new(spec.seed, &name, *of);
                Self::Own(batch.streams.iter().map(stream).collect())
            }
        }
    }

    /// Uniform numbers in `[-1, 1)`, one row of `shape[1..]` for each of `rows`.
    pub(crate) fn uniform(&mut self, rows: &[usize], shape: &[i64], device: Device) -> Tensor {
        match self {
            Self::Shared(_) => {
                Tensor::rand(shape, (Kind::Float, Device::Cpu)).to_device(device) * 2 - 1
            }
            Self::Own(streams) => {
                let count = shape[1..].iter().product::<i64>() as usize;
                let mut values = Vec::with_capacity(rows.len() * count);
                for &row in rows {
                    let stream = &mut streams[row];
                    values.extend((0..count).map(|_| stream.between(-1.0, 1.0) as f32));
                }
                upload(&Tensor::from_slice(&values).view(shape), device)
            }
        }
    }

    /// Standard normal numbers, one row of `shape[1..]` for each of `rows`.
    pub(crate) fn normal(&mut self, rows: &[usize], shape: &[i64], device: Device) -> Tensor {
        match self {
            Self::Shared(_) => Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_device(device),
            Self::Own(streams) => {
                let count = shape[1..].iter().product::<i64>() as usize;
                let values: Vec<f32> =
                    rows.iter().flat_map(|&row| streams[row].normals(count)).collect();
                upload(&Tensor::from_slice(&values).view(shape), device)
            }
        }
    }

    /// Signs, `[n,c,1,1]` of its own for each row, or `[1,c,1,1]` for all.
    pub(crate) fn colours(&mut self, rows: &[usize], channels: i64, device: Device) -> Tensor {
        let shape = match self {
            Self::Shared(_) => [1, channels, 1, 1],
            Self::Own(_) => [rows.len() as i64, channels, 1, 1],
        };
        self.uniform(rows, &shape, device).sign()
    }

    /// As [`Self::colours`], a sign for each row and channel on the host.
    pub(crate) fn coins(&mut self, rows: &[usize], channels: usize) -> Vec<f32> {
        let signs = self.colours(rows, channels as i64, Device::Cpu);
        Vec::try_from(signs.flatten(0, -1)).expect("a sign each")
    }

    /// Signs of the whole `shape`.
    pub(crate) fn signs(&mut self, rows: &[usize], shape: &[i64], device: Device) -> Tensor {
        self.uniform(rows, shape, device).sign()
    }

    /// A corner in `0..=room` for each row, or one for all. AutoAttack never draws `room` itself.
    pub(crate) fn corner(&mut self, rows: &[usize], room: i64) -> Vec<i64> {
        match self {
            Self::Shared(_) => {
                let u = Tensor::rand([1], (Kind::Float, Device::Cpu));
                vec![(u * room).to_kind(Kind::Int64).int64_value(&[0])]
            }
            Self::Own(streams) => {
                rows.iter().map(|&row| streams[row].below(room as u64 + 1) as i64).collect()
            }
        }
    }

    /// Whether a shape is transposed: for each row, or one answer for all.
    pub(crate) fn flip(&mut self, rows: &[usize]) -> Vec<bool> {
        match self {
            Self::Shared(_) => {
                let u = Tensor::rand([1], (Kind::Float, Device::Cpu));
                vec![u.double_value(&[0]) > 0.5]
            }
            Self::Own(streams) => rows.iter().map(|&row| streams[row].chance(0.5)).collect(),
        }
    }
}
