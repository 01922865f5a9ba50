//! Dense matrices and matrices compressed by product quantization (Jégou et al. 2011).

/// Rows of numbers.
pub enum Matrix {
    /// Row after row.
    Dense { num_columns: usize, values: Vec<f32> },
    /// Codes instead of numbers.
    Quantized(Quantized),
}

/// A matrix whose every row is a list of centroids.
pub struct Quantized {
    pub num_rows: usize,
    pub codes: Vec<u8>,
    pub rows: Quantizer,
    /// Codes of the rows' norms and what they represent.
    pub norms: Option<(Vec<u8>, Quantizer)>,
}

/// Cuts a vector into parts and knows 256 values of each.
pub struct Quantizer {
    pub dimension: usize,
    pub num_parts: usize,
    pub part_length: usize,
    pub last_part_length: usize,
    pub centroids: Vec<f32>,
}

/// Centroids of a part: one for each value of a byte.
pub const NUM_CENTROIDS: usize = 256;

impl Quantizer {
    fn centroid(&self, part: usize, code: u8) -> &[f32] {
        let length = if part + 1 == self.num_parts { self.last_part_length } else { self.part_length };
        let start = part * NUM_CENTROIDS * self.part_length + usize::from(code) * length;
        &self.centroids[start..start + length]
    }
}

impl Matrix {
    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        match self {
            Matrix::Dense { num_columns, values } => values.len() / (*num_columns).max(1),
            Matrix::Quantized(matrix) => matrix.num_rows,
        }
    }

    /// Length of a row.
    pub fn num_columns(&self) -> usize {
        match self {
            Matrix::Dense { num_columns, .. } => *num_columns,
            Matrix::Quantized(matrix) => matrix.rows.dimension,
        }
    }

    /// Adds a row to `sum`.
    pub fn add_row(&self, row: usize, sum: &mut [f32]) {
        match self {
            Matrix::Dense { num_columns, values } => {
                let values = &values[row * num_columns..(row + 1) * num_columns];
                sum.iter_mut().zip(values).for_each(|(total, value)| *total += value);
            }
            Matrix::Quantized(matrix) => {
                let norm = matrix.norm(row);
                if matrix.rows.part_length == 2 && matrix.rows.last_part_length == 2 {
                    // as fastText quantizes if it is not told otherwise
                    let centroids = matrix.rows.centroids.chunks_exact(2 * NUM_CENTROIDS);
                    for ((total, centroids), &code) in sum.chunks_exact_mut(2).zip(centroids).zip(matrix.codes_of(row))
                    {
                        let at = 2 * usize::from(code);
                        (total[0], total[1]) = (total[0] + norm * centroids[at], total[1] + norm * centroids[at + 1]);
                    }
                    return;
                }
                for (part, &code) in matrix.codes_of(row).iter().enumerate() {
                    let total = &mut sum[part * matrix.rows.part_length..];
                    total
                        .iter_mut()
                        .zip(matrix.rows.centroid(part, code))
                        .for_each(|(total, value)| *total += norm * value);
                }
            }
        }
    }

    /// The scalar products of the first rows and `vector`, each the same as `dot_row` gives.
    pub fn dot_rows(&self, num_rows: usize, vector: &[f32]) -> Vec<f32> {
        const AT_ONCE: usize = 8;
        let Matrix::Dense { num_columns, values } = self else {
            return (0..num_rows).map(|row| self.dot_row(row, vector)).collect();
        };
        let mut products = Vec::with_capacity(num_rows);
        let rows = &values[..num_rows * num_columns];
        for rows in rows.chunks_exact(AT_ONCE * (*num_columns).max(1)) {
            let mut sums = [0.0_f32; AT_ONCE];
            let mut rows = rows.chunks_exact((*num_columns).max(1));
            let rows: [&[f32]; AT_ONCE] = std::array::from_fn(|_| rows.next().unwrap_or_default());
            for (column, other) in vector.iter().enumerate() {
                for (sum, row) in sums.iter_mut().zip(rows) {
                    *sum += row[column] * other;
                }
            }
            products.extend(sums);
        }
        products.extend((products.len()..num_rows).map(|row| self.dot_row(row, vector)));
        products
    }

    /// The scalar product of a row and `vector`, summed from left to right.
    pub fn dot_row(&self, row: usize, vector: &[f32]) -> f32 {
        match self {
            Matrix::Dense { num_columns, values } => {
                let values = &values[row * num_columns..(row + 1) * num_columns];
                values.iter().zip(vector).fold(0.0, |sum, (value, other)| sum + value * other)
            }
            Matrix::Quantized(matrix) => {
                let mut sum = 0.0;
                for (part, &code) in matrix.codes_of(row).iter().enumerate() {
                    let vector = &vector[part * matrix.rows.part_length..];
                    sum = vector
                        .iter()
                        .zip(matrix.rows.centroid(part, code))
                        .fold(sum, |sum, (value, other)| sum + value * other);
                }
                sum * matrix.norm(row)
            }
        }
    }
}

impl Quantized {
    fn codes_of(&self, row: usize) -> &[u8] {
        &self.codes[row * self.rows.num_parts..(row + 1) * self.rows.num_parts]
    }

    fn norm(&self, row: usize) -> f32 {
        self.norms.as_ref().map_or(1.0, |(codes, quantizer)| quantizer.centroid(0, codes[row])[0])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantized_row_is_its_centroids_times_its_norm() {
        let mut centroids = vec![0.0; NUM_CENTROIDS * 3];
        centroids[2 * 2..2 * 2 + 2].copy_from_slice(&[1.0, 2.0]);
        centroids[NUM_CENTROIDS * 2 + 7] = 3.0;
        let rows = Quantizer { dimension: 3, num_parts: 2, part_length: 2, last_part_length: 1, centroids };
        let norm = Quantizer {
            dimension: 1,
            num_parts: 1,
            part_length: 1,
            last_part_length: 1,
            centroids: vec![0.5; NUM_CENTROIDS],
        };
        let matrix =
            Matrix::Quantized(Quantized { num_rows: 1, codes: vec![2, 7], rows, norms: Some((vec![9], norm)) });
        let mut sum = vec![1.0; 3];
        matrix.add_row(0, &mut sum);
        assert_eq!(sum, [1.5, 2.0, 2.5]);
        assert_eq!(matrix.dot_row(0, &[1.0, 10.0, 100.0]), 160.5);
        let dense = Matrix::Dense { num_columns: 2, values: vec![1.0, 2.0, 3.0, 4.0] };
        assert_eq!((dense.num_rows(), dense.dot_row(1, &[1.0, 10.0])), (2, 43.0));
        let values = (0..21 * 5).map(|value| (value as f32 * 0.37).sin()).collect();
        let dense = Matrix::Dense { num_columns: 5, values };
        let vector = [0.1, 0.7, -0.3, 1e-3, 5.0];
        let one_by_one: Vec<f32> = (0..19).map(|row| dense.dot_row(row, &vector)).collect();
        assert_eq!(dense.dot_rows(19, &vector), one_by_one);
    }
}
