/** Fields of forms that several pages have. */
import type { JSX } from "preact";

interface SelectProps<T extends string> {
  label: string;
  value: T | undefined;
  /** Each a value that is its own title, or a value and its title. */
  options: readonly (T | readonly [value: T, title: string])[];
  onChoose: (value: T) => void;
}

/** Its label stands beside it, or with `isField` above it. */
export function Select<T extends string>(props: SelectProps<T> & { isField?: boolean }) {
  const { label, value, options, onChoose, isField = false } = props;
  return (
    <label class={isField ? "field" : "choice"}>
      <span>{label}</span>
      <select value={value} onChange={(event) => onChoose(event.currentTarget.value as T)}>
        {options.map((option) => {
          const [each, title] = typeof option === "string" ? [option, option] : option;
          return (
            <option key={each} value={each}>
              {title}
            </option>
          );
        })}
      </select>
    </label>
  );
}

type InputFieldProps = JSX.IntrinsicElements["input"] & {
  label: string;
  value: string;
  onValue: (value: string) => void;
};

export function InputField({ label, onValue, ...input }: InputFieldProps) {
  return (
    <label class="field">
      <span>{label}</span>
      <input {...input} onInput={(event) => onValue(event.currentTarget.value)} />
    </label>
  );
}

/** Further keys of the request dictionary, as `parseObject` reads them. */
export function KeysField({ value, onValue }: { value: string; onValue: (value: string) => void }) {
  return (
    <details>
      <summary>Further keys of the request</summary>
      <label class="field">
        <span>As JSON</span>
        <textarea
          class="code"
          rows={3}
          spellcheck={false}
          placeholder='{"Fid": "42"}'
          value={value}
          onInput={(event) => onValue(event.currentTarget.value)}
        />
      </label>
    </details>
  );
}
